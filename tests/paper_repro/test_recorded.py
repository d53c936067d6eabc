"""What is recorded with the same content is not run again, and what is not leaves the rest as it is."""

import argparse
import importlib
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "paper_repro"
PLANS = [
    ("zarnd", "gpu", ("presets", "plan", "chains", "directions", "report", "figures", "run")),
    ("cobra", "cpu", ("presets", "plan", "chains", "measures", "sections", "report", "figures", "run")),
    ("atd", "cpu", ("presets", "plan", "chains", "report", "figures", "measures", "run")),
]


@pytest.fixture
def common(monkeypatch):
    """Import a module of the folder, which is found by the scripts beside it alone."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"common.{name}")


def chains_of(common, runs: Path, *flags: str):
    """A training, and an attack that needs it."""
    steps = common("steps")

    def chain(name, command, argv, *needs):
        step = steps.Step(name, command, (*argv, "--output_dir", str(runs / name)), runs / "done")
        return steps.Chain(name, (step,), needs)

    attack = ("attack", "--detector", str(runs / "network"))
    return [chain("network", "diffad", ("fit", *flags)), chain("attacked", "diffad", attack, "network")]


def test_content_is_the_commands_and_what_they_need_wherever_they_run(common, tmp_path) -> None:
    digests = common("recorded").digests
    first = digests(chains_of(common, tmp_path / "a", "--seed", "0"))
    assert digests(chains_of(common, tmp_path / "b", "--seed", "0")) == first
    other = digests(chains_of(common, tmp_path / "a", "--seed", "1"))
    assert {name for name in first if other[name] != first[name]} == {"network", "attacked"}


def test_a_configuration_file_counts_by_its_content(common, tmp_path) -> None:
    digests = common("recorded").digests
    file = tmp_path / "one.yaml"
    file.write_text("steps: 5  # a remark\n", encoding="utf-8")
    first = digests(chains_of(common, tmp_path, "--config", str(file)))
    file.write_text("steps: 5\n", encoding="utf-8")
    assert digests(chains_of(common, tmp_path, "--config", str(file))) == first
    file.write_text("steps: 6\n", encoding="utf-8")
    assert digests(chains_of(common, tmp_path, "--config", str(file))) != first


def test_what_is_not_recorded_is_run_with_what_it_needs(common, tmp_path) -> None:
    recorded = common("recorded")
    chains = chains_of(common, tmp_path / "runs")
    assert [chain.name for chain in recorded.missing(chains, {"network"})] == ["network", "attacked"]
    assert recorded.missing(chains, {"network", "attacked"}) == []
    output = tmp_path / "cpu"
    recorded.record(output, chains, {"network"})
    assert recorded.recorded(output, chains) == {"network"}
    assert recorded.holder(tmp_path / "gpu", chains) is None
    recorded.record(output, chains, {"network", "attacked"})
    assert recorded.holder(tmp_path / "gpu", chains) == output


def test_a_part_leaves_the_record_of_other_parts(common, tmp_path) -> None:
    recorded = common("recorded")
    chains = chains_of(common, tmp_path / "runs")
    recorded.record(tmp_path, chains[:1], {"network"})
    (tmp_path / "summary.json").write_text(json.dumps({"rows": [{"run": "a", "x": 1}, {"run": "b", "x": 1}]}))
    assert recorded.with_recorded([{"run": "b", "x": 2}], tmp_path) == [
        {"run": "a", "x": 1},
        {"run": "b", "x": 2},
    ]
    changed = chains_of(common, tmp_path / "runs", "--seed", "1")
    recorded.record(tmp_path, changed[1:][:0], set())
    assert recorded.recorded(tmp_path, chains) == {"network"}


def test_nothing_runs_where_the_results_hold_all_of_it(common, tmp_path, capsys) -> None:
    script, recorded = common("script"), common("recorded")
    parser = argparse.ArgumentParser()
    script.add_schedule(parser, tmp_path / "runs")
    chains = chains_of(common, tmp_path / "runs")
    output = tmp_path / "cpu"
    recorded.record(output, chains, {"network", "attacked"})
    (output / "table.md").write_text("| a table |\n", encoding="utf-8")

    def never() -> str:
        raise AssertionError("results were written")

    script.carry_out(parser.parse_args([]), [], [lambda: chains], tmp_path / "logs", output, never)
    assert capsys.readouterr().out == "| a table |\n"
    chains = chains_of(common, tmp_path / "runs", "--no_such_option", "1")
    with pytest.raises(SystemExit):  # --again starts the training, which refuses its arguments
        script.carry_out(
            parser.parse_args(["--again"]), [], [lambda: chains], tmp_path / "logs", output, never
        )


@pytest.mark.parametrize(
    ("paper", "preset", "names"), PLANS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_report_of_what_is_recorded_is_what_is_recorded(
    monkeypatch, tmp_path, paper, preset, names
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / paper))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    folder = FOLDER / paper / "results" / preset
    for name in ("summary.json", "recorded.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    for file in folder.glob("runs/*/manifest.json"):
        copy = tmp_path / "runs" / file.parent.name / file.name
        copy.parent.mkdir(parents=True)
        copy.write_bytes(file.read_bytes())
    run = importlib.import_module("run")
    words = ["--preset", preset, "--only", "digits", "--runs", str(tmp_path / "r"), "--output", str(tmp_path)]
    assert run.main([*words, "--report"]) == 0
    for name in ("summary.json", "table.md", "recorded.json"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (folder / name).read_text(encoding="utf-8")
    for name in names:
        sys.modules.pop(name, None)
