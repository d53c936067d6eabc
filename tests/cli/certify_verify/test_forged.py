"""`certify verify` on runs that somebody changed, from one bound to everything but the noise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from verifying import FAST, checks, failed, forge, retell, rewrite_draws, rewrite_rows

from certify import console
from certify.certificate import percentile_scores
from certify.cli import main
from certify.store import ScoreStore
from diffad.stored import stored_draws


def test_a_changed_bound_fails_with_image_and_both_values(run, trained, capsys) -> None:
    def better(columns) -> None:
        at = next(
            i
            for i, (d, c, r) in enumerate(
                zip(columns["detector"], columns["condition"], columns["radius"], strict=True)
            )
            if (d, c, r) == ("diffusion", "certified", 0.1)
        )
        columns["lower"][at] += 1e-9

    rewrite_rows(run, better)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    bounds = found["bounds of diffusion (l2), reference, σ = 0.5"]
    assert bounds["status"] == "failed"
    assert "lower end stored" in bounds["detail"]
    assert "digits/8/" in bounds["detail"]


def test_changed_rows_no_longer_give_the_tables(run, capsys) -> None:
    rewrite_rows(run, lambda columns: columns.update(label=columns["label"][::-1]))
    assert main(["verify", str(run), "--tables_only"]) == console.FAILED
    out, err = capsys.readouterr()
    assert out.startswith("failed  tables  summary.json: ")
    assert "stored" in out
    assert "1 of 1 checks failed" in err


def test_changed_tables_fail_and_name_the_first_difference(run, capsys) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["auroc"][2]["auroc"] = 0.125
    (run / "summary.json").write_text(json.dumps(summary))
    detail = checks([str(run), "--tables_only"], capsys, console.FAILED)["tables"]["detail"]
    assert detail.startswith("summary.json: auroc[2].auroc: stored 0.125, derived ")
    (run / "summary.json").unlink()
    assert "missing" in checks([str(run), "--tables_only"], capsys, console.FAILED)["tables"]["detail"]


def test_a_relabelled_image_fails_though_tables_and_bounds_agree(run, trained, capsys) -> None:
    def relabel(columns) -> None:
        hard = next(name for name, label in zip(columns["image_id"], columns["label"], strict=True) if label)
        for at, name in enumerate(columns["image_id"]):
            if name == hard:
                columns["label"][at] = 0

    rewrite_rows(run, relabel)
    retell(run)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    images = "images of diffusion (l2), reference, σ = 0.5"
    assert failed(found) == [images]
    assert "stored 0, the data says 1" in found[images]["detail"]


def test_a_dropped_image_and_a_moved_threshold_fail_without_noise(tmp_path, capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--output_dir", "plain", "--no_baselines", *FAST]
    assert main(argv) == console.DONE
    capsys.readouterr()
    whole = Path(shutil.copytree("plain", "whole"))

    def drop(columns) -> None:
        keep = [at for at, index in enumerate(columns["image_index"]) if index != 4]
        columns.update({name: [column[at] for at in keep] for name, column in columns.items()})

    rewrite_rows(Path("plain"), drop)
    retell(Path("plain"))
    found = checks(["plain"], capsys, console.FAILED)
    assert failed(found) == ["images of pixel_nn"]
    assert "has rows of 5 images, the test set has 6" in found["images of pixel_nn"]["detail"]

    rewrite_rows(whole, lambda columns: columns.update(threshold=[t + 0.1 for t in columns["threshold"]]))
    retell(whole)
    assert failed(checks([str(whole)], capsys, console.FAILED)) == ["threshold of pixel_nn"]


def test_fewer_held_out_normals_than_the_options_say_fail(run, trained, capsys) -> None:
    """Who may leave out the normals with the highest scores chooses the threshold."""
    folder = run / "draws" / "diffusion" / "calibrate"
    old = ScoreStore(folder, json.loads((folder / "config.json").read_text())["config"])
    score = {index: percentile_scores(stored_draws(old, [index], 100))[0] for index in old.digests()}
    lowest = sorted(score, key=lambda index: score[index])[:12]
    rewrite_draws(folder, lambda kept: {index: kept[index] for index in lowest})

    def lower(columns) -> None:
        """Write the largest of 12, which is the rank that 0.9 gives."""
        for at, detector in enumerate(columns["detector"]):
            if detector == "diffusion":
                columns["threshold"][at] = score[lowest[-1]]

    rewrite_rows(run, lower)
    retell(run)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    threshold = "threshold of diffusion (l2), reference, σ = 0.5"
    assert failed(found) == [threshold]
    assert "the draws are of 12 held-out normals, need the first 17" in found[threshold]["detail"]


def test_a_forged_score_is_found_by_drawing_it_again(run, trained, capsys) -> None:
    forge(run, place=3, row=0, value=0.25)
    base = [str(run), "--detector", str(trained), "--no_baselines"]
    found = checks([*base, "--share", "1"], capsys, console.FAILED)
    redraw = found["redraw of diffusion (l2), reference, σ = 0.5, test images"]
    assert redraw["status"] == "failed"
    assert "draw 3: stored 0.25, redrawn" in redraw["detail"]


def test_a_run_forged_throughout_is_found_as_well(run, trained, capsys) -> None:
    """Stored scores, rows and tables agree with each other; only the noise tells."""

    def raised(kept):
        return {
            index: (digest, {chunk: scores + np.float32(index >= 3) for chunk, scores in chunks.items()})
            for index, (digest, chunks) in kept.items()
        }

    rewrite_draws(run / "draws" / "diffusion", raised)
    argv = ["--detector", str(trained), "--output_dir", str(run), *FAST]
    assert main(argv) == console.DONE  # reads the forged draws, and writes rows and tables from them
    capsys.readouterr()
    found = checks(
        [str(run), "--detector", str(trained), "--no_baselines", "--share", "1"], capsys, console.FAILED
    )
    wrong = [name for name, check in found.items() if check["status"] == "failed"]
    assert wrong == ["redraw of diffusion (l2), reference, σ = 0.5, test images"]


def test_a_forged_threshold_fails(run, trained, capsys) -> None:
    rewrite_rows(
        run, lambda columns: columns.update(threshold=[value and value + 1 for value in columns["threshold"]])
    )
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    assert found["threshold of diffusion (l2), reference, σ = 0.5"]["status"] == "failed"


def test_a_more_lenient_level_fails(run, trained, capsys) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["commands"][0]["config"]["alpha"] = 0.0001  # claimed, not kept
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    levels = found["levels of diffusion (l2), reference, σ = 0.5"]
    assert levels["status"] == "failed"
    assert "alpha" in levels["detail"]


def test_a_smaller_constant_than_the_detector_declares_fails(run, trained, capsys) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["commands"][0]["config"]["lipschitz"] == {"diffusion": 1.0}
    manifest["commands"][0]["config"]["lipschitz"] = {"diffusion": 0.5}
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    options = found["options of diffusion (l2), reference, σ = 0.5"]
    assert options["detail"] == "the run says L = 0.5, the detector declares 1"
