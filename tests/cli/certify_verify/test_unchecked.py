"""`certify verify` where something is missing, says so, or is the wrong one, and is refused."""

from __future__ import annotations

import json
import shutil

import pytest
from verifying import checks, retell, statuses

from certify import console
from certify.cli import main
from certify.files import write_json
from diffad import load_detector


def test_absent_data_leaves_images_and_thresholds_unchecked(run, trained, capsys) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["options"]["spec"] = "mvtec:gone"
    write_json(run / "manifest.json", manifest)
    retell(run)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    for what in ("images", "threshold"):
        check = found[f"{what} of diffusion (l2), reference, σ = 0.5"]
        assert check["status"] == "not checked"
        assert "name it by --data" in check["detail"]


def test_without_draws_or_detector_it_says_what_was_not_checked(run, trained, capsys) -> None:
    shutil.rmtree(run / "draws")
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    assert statuses(found) == {
        "tables": "ok",
        "images of diffusion (l2), reference, σ = 0.5": "ok",
        "levels of diffusion (l2), reference, σ = 0.5": "ok",
        "options of diffusion (l2), reference, σ = 0.5": "not checked",
        "bounds of diffusion (l2), reference, σ = 0.5": "not checked",
        "redraw of diffusion (l2), reference, σ = 0.5": "not checked",
    }
    assert checks([str(run), "--tables_only"], capsys)["tables"]["status"] == "ok"


def test_a_detector_that_is_gone_leaves_only_its_redraw(run, trained, capsys) -> None:
    # the manifest keeps the last name of the folder only, and here there is none of that name
    found = checks([str(run), "--no_baselines"], capsys, console.FAILED)
    assert found["redraw of diffusion (l2), reference, σ = 0.5"]["status"] == "not checked"
    assert "name it by --detector" in found["redraw of diffusion (l2), reference, σ = 0.5"]["detail"]
    for what in ("images", "options", "bounds", "threshold"):
        assert found[f"{what} of diffusion (l2), reference, σ = 0.5"]["status"] == "ok"


def test_a_purifier_that_the_run_did_not_have_is_refused(run, trained, capsys) -> None:
    argv = ["verify", str(run), "--detector", str(trained), "--purifier", str(trained)]
    assert main(argv) == console.FAILED
    assert "--purifier: the run was certified without one" in capsys.readouterr().err


def test_another_detector_is_refused(run, trained, tmp_path, capsys) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    detector = load_detector(other)
    detector.noise_ = detector.noise_ + 1.0
    detector.save_pretrained(other)
    for named, message in [
        (str(other), "is another diffusion than the one certified"),
        ("pca", "is another pca"),
    ]:
        assert main(["verify", str(run), "--detector", named]) == console.FAILED
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err.splitlines()[-1]


def test_other_data_is_refused(run, trained, capsys) -> None:
    assert main(["verify", str(run), "--detector", str(trained), "--data", "textures:grid"]) == console.FAILED
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/nowhere"], "no manifest.json here"),
        (["run", "--share", "0"], "--share: got 0.0"),
        (["run", "--share", "1.5"], "--share: got 1.5"),
        (["run", "--device", "nowhere"], "device: 'nowhere'"),
        (["run", "--detector", "/nowhere"], "neither the folder of a fitted detector nor one of"),
    ],
)
def test_each_mistake_says_one_clear_thing(argv, message, run, capsys) -> None:
    assert main(["verify", *argv]) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]


def test_usage(capsys) -> None:
    assert main(["verify", "--help"]) == console.DONE
    assert "usage: certify verify" in capsys.readouterr().out
    for argv in (["verify"], ["verify", "run", "--rubbish", "1"]):
        assert main(argv) == console.USAGE
        assert capsys.readouterr().out == ""
