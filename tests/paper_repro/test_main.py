"""`python -m paper_repro`: which script runs with which options, what `all` does about failures and missing data."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(monkeypatch):
    """Start no script but keep its words; `codes` says what each returns."""
    monkeypatch.syspath_prepend(str(ROOT))
    found = SimpleNamespace(words=[], codes={})

    def run(words, **_options):
        found.words.append([Path(words[1]).parent.name, *words[2:]])
        return SimpleNamespace(returncode=found.codes.get(Path(words[1]).parent.name, 0))

    monkeypatch.setattr(subprocess, "run", run)
    return found


def main(*words: str) -> int:
    from paper_repro.__main__ import main

    return main(list(words))


def test_options_go_to_the_script_of_the_paper(started) -> None:
    assert main("cobra", "--preset", "cpu", "--only", "mnist", "--mnist", "folder:d") == 0
    assert started.words == [["cobra", "--preset", "cpu", "--only", "mnist", "--mnist", "folder:d"]]


def test_without_data_a_preset_does_what_needs_none_and_names_the_rest(started, capsys) -> None:
    assert main("atd", "--preset", "cpu", "--jobs", "2") == 0
    assert started.words == [["atd", "--preset", "cpu", "--only", "digits", "--jobs", "2"]]
    assert (
        "python -m paper_repro atd --preset cpu --only cifar10 --cifar10 folder:DIR"
        in capsys.readouterr().err
    )


def test_all_goes_on_after_a_failure_and_fails_in_the_end(started, capsys) -> None:
    started.codes = {"cobra": 1}
    assert main("all", "--preset", "cpu", "--again", "--jobs", "2") == 1
    assert [words[0] for words in started.words] == [
        name for name in papers() if "cpu" in papers()[name].presets
    ]
    assert ["cohen2019", "--preset", "cpu", "--again", "--jobs", "2"] in started.words
    assert "not complete: cobra; the same command resumes" in capsys.readouterr().err


def test_all_gives_every_core_a_process_unless_told(started, monkeypatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert main("all", "--preset", "cpu") == 0
    assert ["atd", "--preset", "cpu", "--only", "digits", "--jobs", "2"] in started.words
    started.words.clear()
    assert main("all", "--preset", "cpu", "--jobs", "1") == 0
    assert ["atd", "--preset", "cpu", "--only", "digits", "--jobs", "1"] in started.words


def test_all_stops_when_it_is_interrupted(started) -> None:
    started.codes = {next(iter(papers())): 130}
    assert main("all", "--preset", "cpu") == 130
    assert len(started.words) == 1


def test_all_names_what_needs_data_of_the_user(started, capsys) -> None:
    assert main("all", "--preset", "paper") == 0
    ran = [words[0] for words in started.words]
    assert "zarnd" not in ran
    assert (
        "atd: needs data or weights that you bring: python -m paper_repro atd --preset paper"
        in capsys.readouterr().err
    )


def test_what_is_unknown_is_named(started, capsys) -> None:
    assert main("cohen2019", "--preset", "paper") == 1
    assert "--preset: cohen2019 has no paper; allowed are smoke, cpu" in capsys.readouterr().err
    assert main("all", "--limit", "3") == 1
    assert "--limit: not an option of `all`; allowed are --again, " in capsys.readouterr().err
    assert not started.words


def papers():
    from paper_repro.papers import PAPERS

    return PAPERS


def test_every_preset_is_one_that_the_script_knows(started) -> None:
    for name, paper in papers().items():
        text = (ROOT / "paper_repro" / name / "run.py").read_text(encoding="utf-8")
        presets = ROOT / "paper_repro" / name / "presets.py"
        text += presets.read_text(encoding="utf-8") if presets.is_file() else ""
        assert all(f'"{preset}"' in text for preset in paper.presets)
        assert set(paper.parts) | set(paper.brings) <= set(paper.presets)


def test_the_command_line_starts_the_script() -> None:
    words = [sys.executable, "-m", "paper_repro", "cohen2019", "--preset", "smoke", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "run.py" in done.stdout or "smoke|cpu|paper" in done.stdout
