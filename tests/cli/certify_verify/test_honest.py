"""`certify verify` on runs that nobody touched: every check holds, whatever drew the noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from verifying import FAST, checks, failed, rewrite_rows, statuses

from certify import console
from certify.cli import main
from diffad import load_detector
from diffad.results import read_run, summarize


def test_an_honest_run_holds_in_every_check(run, trained, capsys) -> None:
    assert main(["verify", str(run), "--detector", str(trained)]) == console.DONE
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    for what in (
        "tables",
        "images of diffusion (l2), reference, σ = 0.5",
        "levels of diffusion (l2), reference, σ = 0.5",
        "options of diffusion (l2), reference, σ = 0.5",
        "bounds of diffusion (l2), reference, σ = 0.5",
        "threshold of diffusion (l2), reference, σ = 0.5",
        "redraw of diffusion (l2), reference, σ = 0.5, test images",
        "redraw of diffusion (l2), reference, σ = 0.5, held-out normals",
        "redraw of closed_form, reference, σ = 0.5, test images",
        "images of pixel_nn",
        "levels of pixel_nn",
        "bounds of pixel_nn",
        "threshold of pixel_nn",
        "bounds of pca",
        "bounds of patch_nn",
        "bounds of pixel_mean",
    ):
        assert sum(what in line for line in lines) == 1, what
    recomputed = ("redraw", "bounds of pixel_nn", "threshold of pixel_nn")
    assert all("equal bit for bit" in line for line in lines if any(what in line for what in recomputed))
    assert "checks hold (key " in err


def test_the_share_and_the_key_choose_what_is_redrawn(run, trained, capsys) -> None:
    base = [str(run), "--detector", str(trained), "--no_baselines"]
    found = checks([*base, "--share", "1", "--key", "7"], capsys)
    assert not any("pixel_nn" in name for name in found)
    (test,) = (check["detail"] for name, check in found.items() if name.endswith("test images"))
    assert test.startswith("12 of 12 chunks of 50 draws")
    found = checks([*base, "--key", "7"], capsys)
    (test,) = (check["detail"] for name, check in found.items() if name.endswith("test images"))
    assert test.startswith("1 of 12 chunks")


def test_a_reference_run_with_a_purifier_holds(trained, tmp_path, capsys) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    detector = load_detector(other)
    with torch.no_grad():
        for weights in detector.purifier.denoiser.unet.parameters():
            weights.mul_(0.9)
    detector.save_pretrained(other)
    argv = ["--detector", str(trained), "--purifier", str(other), "--output_dir", "purified", *FAST]
    assert main(argv) == console.DONE
    capsys.readouterr()
    base = ["purified", "--detector", str(trained)]
    found = checks([*base, "--purifier", str(other)], capsys)
    assert set(statuses(found).values()) == {"ok"}
    assert "redraw of closed_form, reference, σ = 0.5, test images" in found  # which no purifier serves

    found = checks([*base, "--purifier", str(trained), "--no_baselines"], capsys, console.FAILED)
    assert "redraw of diffusion (l2), reference, σ = 0.5, test images" in failed(found)
    options = found["options of diffusion (l2), reference, σ = 0.5"]
    assert options["status"] == "failed"
    assert ", the one at hand is '" in options["detail"]

    other.rename(tmp_path / "gone")
    found = checks([*base, "--no_baselines"], capsys, console.FAILED)
    redraw = found["redraw of diffusion (l2), reference, σ = 0.5"]
    assert redraw["status"] == "not checked"
    assert "name it by --purifier" in redraw["detail"]


def test_a_run_without_noise_is_computed_again(tmp_path, capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--output_dir", "plain", "--no_baselines", *FAST]
    assert main(argv) == console.DONE
    capsys.readouterr()
    found = checks(["plain"], capsys)
    assert statuses(found) == {
        "tables": "ok",
        "images of pixel_nn": "ok",
        "levels of pixel_nn": "ok",
        "bounds of pixel_nn": "ok",
        "threshold of pixel_nn": "ok",
    }

    def wider(columns) -> None:
        kinds = zip(columns["upper"], columns["condition"], strict=True)
        columns["upper"] = [value + 1e-3 * (kind == "certified") for value, kind in kinds]

    rewrite_rows(Path("plain"), wider)
    assert statuses(checks(["plain"], capsys, console.FAILED))["bounds of pixel_nn"] == "failed"


def test_plain_smoothing_needs_no_detector_for_its_bounds(tmp_path, capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--smoothing", "input", "--sigma", "0.25"]
    assert main([*argv, "--output_dir", "noisy", "--no_baselines", *FAST]) == console.DONE
    capsys.readouterr()
    found = checks(["noisy", "--share", "0.5"], capsys)
    assert set(statuses(found).values()) == {"ok"}
    assert "12 of 12" not in found["redraw of pixel_nn, input, σ = 0.25, test images"]["detail"]


@pytest.mark.parametrize(
    "extra", [["--adaptive", "--n", "400"], ["--images_per_batch", "2", "--batch_size", "100"]]
)
def test_other_ways_to_draw_hold_as_well(extra, trained, capsys) -> None:
    argv = ["--detector", str(trained), "--output_dir", "other", "--no_baselines", *FAST, *extra]
    assert main([*argv, "--radii", "0.05,0.1", "--joint"]) == console.DONE
    capsys.readouterr()
    found = checks(["other", "--detector", str(trained), "--share", "1"], capsys)
    assert set(statuses(found).values()) == {"ok"}
    redraw = found["redraw of diffusion (l2), reference, σ = 0.5, test images"]
    assert "equal bit for bit" in redraw["detail"]
    rewrite_rows(
        Path("other"),
        lambda columns: columns.update(
            upper=[
                v + 1e-9 * (k == "certified")
                for v, k in zip(columns["upper"], columns["condition"], strict=True)
            ]
        ),
    )
    found = checks(["other", "--detector", str(trained)], capsys, console.FAILED)
    assert found["bounds of diffusion (l2), reference, σ = 0.5"]["status"] == "failed"


def test_the_summary_that_is_compared_is_the_one_that_is_written(run) -> None:
    written = json.loads((run / "summary.json").read_text())
    assert written == json.loads(json.dumps(summarize(read_run(run))))
