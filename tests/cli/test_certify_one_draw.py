"""`certify --one_draw K`: the randomised detector has a command line, a folder and a table of its own."""

from __future__ import annotations

import json
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
