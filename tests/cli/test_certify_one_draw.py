"""`certify --one_draw K`: the randomised detector has a command line, a folder and a table of its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from certify import console
from certify.cli import main

FAST = ["--limit", "4", "--batch_size", "50", "--radii", "0.05,0.1"]


def test_it_prints_its_own_table_and_keeps_its_draws(trained, capsys, monkeypatch) -> None:
    words = ["--detector", str(trained), "--one_draw", "50", "--output_dir", "once", *FAST]
    assert main(words) == console.DONE
    out, err = capsys.readouterr()
    assert "diffusion (l2), reference, σ = 0.5  8 x 8  4 normal + 4 anomalous  one draw an image" in out
    assert "closed_form, reference" in out
    assert "another detector than the" in out
    assert "K = 50" in err
    record = json.loads(Path("once/one_draw.json").read_text())["one_draw"]
    assert {row["detector"] for row in record} == {"diffusion", "closed_form"}
    (entry,) = json.loads(Path("once/manifest.json").read_text())["commands"]
    assert entry["config"]["one_draw"] == 50
    assert not Path("once/images.parquet").exists()

    def refuse(*args):
        raise AssertionError("drew again")

    monkeypatch.setattr("certify.pool.DrawPool._score", refuse)
    assert main([*words, "--json"]) == console.DONE
    assert json.loads(capsys.readouterr().out)["one_draw"] == record


def test_a_run_of_the_percentile_is_not_mixed_with_it(capsys) -> None:
    words = [
        "--detector",
        "closed_form",
        "--resolution",
        "8",
        "--sigma",
        "1",
        "--no_baselines",
        "--no_examples",
    ]
    words += ["--output_dir", "run", *FAST]
    assert main([*words, "--n", "50"]) == console.DONE
    capsys.readouterr()
    assert main([*words, "--one_draw", "50"]) == console.FAILED
    assert "holds a run of another detector" in capsys.readouterr().err


NOISY = ["--detector", "pixel_nn", "--resolution", "8", "--smoothing", "input", "--sigma", "0.5"]


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 50 draws an image."""
    folder = tmp_path_factory.mktemp("once") / "run"
    words = [*NOISY, "--no_baselines", "--one_draw", "50", "--output_dir", str(folder)]
    assert main([*words, *FAST]) == console.DONE
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--one_draw", "500"], "one_draw was 50 and is now 500"),
        (["--alpha", "0.01"], "alpha was 0.001 and is now 0.01"),
        (["--quantile", "0.8"], "quantile was 0.9 and is now 0.8"),
        (["--joint"], "joint was False and is now True; radii was '0.05,0.1' and is now '0.1'"),
        ([], "radii was '0.05,0.1' and is now '0.1'"),
        (["--detector", "pca"], "holds the table of pixel_nn"),
    ],
)
def test_a_table_is_not_replaced_by_one_under_other_options(change, message, once, capsys) -> None:
    words = [*NOISY, "--no_baselines", "--one_draw", "50", "--output_dir", str(once), *FAST]
    before = (once / "one_draw.json").read_bytes(), (once / "manifest.json").read_bytes()
    assert main([*words, "--radii", "0.1", *change]) == console.FAILED
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert "use another --output_dir" in error
    assert before == ((once / "one_draw.json").read_bytes(), (once / "manifest.json").read_bytes())


def test_a_radius_may_be_added(once, tmp_path, capsys) -> None:
    folder = Path(shutil.copytree(once, tmp_path / "more"))
    words = [*NOISY, "--no_baselines", "--one_draw", "50", "--output_dir", str(folder), *FAST]
    before = json.loads((folder / "one_draw.json").read_text())["one_draw"]
    assert main([*words, "--radii", "0.05,0.1,0.2"]) == console.DONE
    rows = json.loads((folder / "one_draw.json").read_text())["one_draw"]
    assert all(row in rows for row in before)
    assert {row["radius"] for row in rows} == {0.0, 0.05, 0.1, 0.2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--one_draw", "0"], "need at least 1 draw"),
        (["--one_draw", "50", "--sigma", "0.5,1"], "give one --sigma"),
        (["--one_draw", "50", "--adaptive"], "--adaptive belongs to the certificate of the percentile"),
        (["--one_draw", "50", "--confidence", "failures"], "--confidence failures belongs"),
        (["--one_draw", "50", "--dry_run"], "--dry_run belongs"),
        (
            ["--one_draw", "50", "--threshold", "conformal", "--threshold_radius", "1"],
            "--threshold conformal belongs",
        ),
        (["--one_draw", "50", "--detector", "pixel_nn", "--resolution", "8"], "'none' draws no noise"),
    ],
)
def test_each_mistake_says_one_clear_thing(words, message, capsys, monkeypatch) -> None:
    def train():
        raise AssertionError("trained a detector before it looked at the options")

    monkeypatch.setattr("diffad.sources.built_in_detector", train)
    assert main(words) == console.FAILED
    assert message in capsys.readouterr().err.splitlines()[-1]
