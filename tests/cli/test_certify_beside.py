"""A network-free detector certified under noise stands beside its own plain row, fitted apart."""

from __future__ import annotations

import json

import pytest

from certify import console
from certify.cli import main
from diffad.results import read_run

FAST = [
    "--limit",
    "3",
    "--n",
    "50",
    "--batch_size",
    "50",
    "--radii",
    "0.05",
    "--no_examples",
    "--resolution",
    "8",
]


@pytest.mark.parametrize(("name", "own"), [("pixel_mean", "none"), ("closed_form", "reference")])
def test_the_plain_row_is_there_and_verified_as_itself(name, own, capsys, monkeypatch) -> None:
    monkeypatch.setattr("diffad.evaluation.BASELINES", ("pixel_mean", "closed_form"))
    noisy = ["--smoothing", "input", "--sigma", "0.5", "--fit_sigma", "0.5"]
    assert main(["--detector", name, *noisy, *FAST, "--output_dir", "run"]) == console.DONE
    capsys.readouterr()
    run = read_run("run")
    ways = {subject.smoothing: subject for subject in run.subjects if subject.detector == name}
    assert sorted(ways) == sorted(["input", own])
    prints = run.manifest["detectors"]
    assert prints[name] != prints[f"{name}, {own}"]
    assert main(["verify", "run", "--json"]) == console.DONE
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert {check["status"] for check in checks} == {"ok"}
    assert sum(check["name"].startswith("bounds of") for check in checks) == 3


def test_a_row_that_is_its_own_plain_row_stands_once(capsys, monkeypatch) -> None:
    monkeypatch.setattr("diffad.evaluation.BASELINES", ("pixel_mean", "pixel_nn"))
    assert main(["--detector", "pixel_mean", *FAST, "--output_dir", "run"]) == console.DONE
    assert sorted(read_run("run").manifest["detectors"]) == ["pixel_mean", "pixel_nn"]
