"""`certify verify` on runs whose draws were real, but whose rows promise more than these prove."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from verifying import FAST, checks, failed, retell, rewrite_rows

from certify import console
from certify.cli import main
from certify.types import ScoreBounds
from diffad.claims import claims_of
from diffad.results import read_run, write_run
from diffad.run_sources import RunSources
from diffad.thresholds import calibrate

NOISY = ["--detector", "pixel_nn", "--resolution", "8", "--smoothing", "input", "--sigma", "0.25"]
NAME = "levels of pixel_nn, input, σ = 0.25"


def test_noisy_bounds_that_pose_as_certain_fail(capsys) -> None:
    """Bounds at a level of 0.45 an image, without a word of draws: whoever derives them again finds them equal."""
    assert main([*NOISY, "--output_dir", "noisy", "--no_baselines", *FAST]) == console.DONE
    capsys.readouterr()
    folder = Path("noisy")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["commands"][0]["config"]["alpha_per_image"] = 0.45
    (folder / "manifest.json").write_text(json.dumps(manifest))
    run = read_run(folder)
    sources, (claim,) = RunSources(run), claims_of(run)
    smoothed, split = sources.rebuilt(claim).smoothed, sources.split
    assert smoothed is not None
    assert split is not None
    indices = range(len(split.test))
    plan = claim.rows[0][1]
    threshold = calibrate(smoothed, split.calibration.images[: plan.calibration], plan)
    clean = ScoreBounds.exact(smoothed.score(split.test.images, indices))
    rows = [
        replace(
            row,
            bounds=clean
            if row.condition == "clean"
            else smoothed.bounds(split.test.images, indices, [row.radius]).at(0),
            **{"n": 0, "alpha": None, "threshold": threshold},
        )
        for row in run.conditions
        if row.alpha_kind != "per_image"
    ]
    write_run(folder, manifest, rows, replace=True)
    found = checks(["noisy"], capsys, console.FAILED)
    assert failed(found) == [NAME]
    assert found[NAME]["detail"].endswith(
        "rests on 0 draws an image, the way 'input' under its options on 100"
    )
    shutil.rmtree(folder / "draws")
    assert failed(checks(["noisy"], capsys, console.FAILED)) == [NAME]


def test_bounds_that_may_each_be_wrong_do_not_pose_as_all_right(capsys) -> None:
    """Under `failures` a bound has the level of the whole cell; as kind `total` nobody would pay for wrong ones."""
    options = ["--output_dir", "noisy", "--no_baselines", *FAST, "--confidence", "failures"]
    assert main([*NOISY, *options]) == console.DONE
    capsys.readouterr()
    assert failed(checks(["noisy"], capsys)) == []

    def pose(columns) -> None:
        kinds = np.array(columns["alpha_kind"], dtype=object)
        columns["alpha_kind"] = np.where(kinds == "failures", "total", kinds).tolist()

    rewrite_rows(Path("noisy"), pose)
    retell(Path("noisy"))
    found = checks(["noisy"], capsys, console.FAILED)
    assert failed(found) == [NAME]
    assert found[NAME]["detail"].endswith("alpha is of kind 'total', the options give 'failures'")
