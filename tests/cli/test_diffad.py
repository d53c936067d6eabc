from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from certify import console
from certify.cli import main as certify
from certify.smoothing import threshold_rank
from diffad import load_detector
from diffad.backbones import Backbone, ResNet
from diffad.cli import COMMANDS, main
from diffad.commands.data import TITLE, copies_hint
from diffad.data import load_data
from diffad.detector import allowed_quantile
from diffad.results import read_run

DIGITS = ["--detector", "pixel_nn", "--resolution", "8"]


def refused(argv: list[str], capsys, code: int = console.FAILED) -> str:
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_on_stdout(command, capsys) -> None:
    assert main([command, "--help"]) == console.DONE
    captured = capsys.readouterr()
    assert f"usage: diffad {command}" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_exits_with_2_and_an_empty_stdout(command, capsys) -> None:
    positional = {"report": ["run"], "data": ["digits"], "export": ["folder", "score.onnx"]}.get(command, [])
    assert "--rubbish" in refused([command, *positional, "--rubbish", "1"], capsys, console.USAGE)


def test_the_command_itself(capsys) -> None:
    assert main(["--help"]) == console.DONE
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)
    assert main(["--version"]) == console.DONE
    assert capsys.readouterr().out.startswith("diffad ")
    assert "usage: diffad COMMAND" in refused([], capsys, console.USAGE)
    assert "did you mean 'compare'?" in refused(["comapre"], capsys, console.USAGE)
    assert "unknown command 'zzz'; allowed are fit" in refused(["zzz"], capsys, console.USAGE)


def test_it_starts_as_a_process_of_its_own(start) -> None:
    process = start("-m", "diffad.cli", "select", "--sgima", "1")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (console.USAGE, "")
    assert "--sigma" in err
    assert "Traceback" not in err


def test_fit_saves_a_calibrated_detector_with_its_manifest(capsys) -> None:
    assert main(["fit", "--detector", "pca", "--resolution", "8", "--output_dir", "runs/pca"]) == console.DONE
    assert capsys.readouterr().out == "runs/pca\n"
    detector = load_detector("runs/pca")
    assert detector.name == "pca"
    assert detector.threshold_ is not None
    manifest = json.loads(Path("runs/pca/manifest.json").read_text())
    assert manifest["detectors"] == {"pca": detector.fingerprint()}
    assert manifest["data"]["options"]["normal_class"] == "8"
    assert main(["score", "--detector", "runs/pca", "--limit", "2"]) == console.DONE
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4
    assert captured.err.startswith("AUROC ")


def test_fit_takes_the_samples_of_a_diffusion_model(trained, capsys) -> None:
    argv = ["fit", "--detector", "generated_nn", "--generator", str(trained), "--generated", "30"]
    assert main([*argv, "--generator_sigmas", "1,0.5", "--output_dir", "runs/nn"]) == console.DONE
    detector, split = load_detector("runs/nn"), load_data("digits", normal_class="8", resolution=8)
    assert detector.bank.shape == (len(split.train) + 30, 64)
    torch.testing.assert_close(detector.bank[: len(split.train)], split.train.images.flatten(1))
    assert (detector.generated, detector.sigmas) == (30, [1.0, 0.5])
    fast = ["--limit", "3", "--radii", "0.1", "--no_closed_form", "--no_examples"]
    capsys.readouterr()
    assert certify(["--detector", "runs/nn", *fast]) == console.DONE
    out = capsys.readouterr().out
    assert "  generated_nn  8 x 8" in out
    assert "  pixel_nn  8 x 8" in out
    generator = ["fit", "--generator", str(trained)]
    assert "pixel_nn takes none" in refused(generator, capsys)
    for words in (["--data", "digits"], ["--protocol", "ood"], ["--outliers", "textures"]):
        assert "its own data" in refused([*generator, "--detector", "generated_nn", *words], capsys)
    assert "need a diffusion" in refused(
        ["fit", "--detector", "generated_nn", "--generator", "runs/nn"], capsys
    )
    assert "needs the folder of a trained diffusion" in refused(["fit", "--detector", "generated_nn"], capsys)


def test_zarnd_is_fitted_on_the_features_of_a_backbone(capsys) -> None:
    arguments = {"width": 4, "blocks": [1, 1]}
    Backbone(ResNet(width=4, blocks=(1, 1)), arch="resnet", arguments=arguments).save_pretrained("backbone")
    argv = ["fit", "--detector", "zarnd", "--backbone", "backbone", "--k", "3", "--normalize"]
    assert main([*argv, "--output_dir", "runs/zarnd"]) == console.DONE
    assert capsys.readouterr().out == "runs/zarnd\n"
    detector = load_detector("runs/zarnd")
    assert (detector.config()["k"], detector.config()["normalize"]) == (3, True)
    assert "needs the folder of a network" in refused(["fit", "--detector", "zarnd"], capsys)
    assert "pca takes none" in refused(["fit", "--detector", "pca", "--backbone", "backbone"], capsys)


@pytest.mark.parametrize("count", [1, 2, 6, 10, 12, 18, 19, 20, 500])
def test_few_held_out_normals_are_enough_for_the_quantile_of_a_fit(count) -> None:
    quantile = allowed_quantile(count)
    assert quantile <= 0.95
    assert threshold_rank(count, quantile) == (count if count < 20 else math.ceil((count + 1) * 0.95))


def test_fit_sends_networks_to_the_training(capsys) -> None:
    assert "train_ddpm.py" in refused(["fit", "--detector", "diffusion"], capsys)
    assert "allowed are pixel_mean" in refused(["fit", "--detector", "pixelnn"], capsys)


def test_score_as_json_is_one_object(capsys) -> None:
    assert main(["score", *DIGITS, "--limit", "3", "--json"]) == console.DONE
    content = json.loads(capsys.readouterr().out)
    split = load_data("digits", normal_class="8", resolution=8, limit=3)
    assert [image["image"] for image in content["images"]] == list(split.test.identifiers)
    assert [image["label"] for image in content["images"]] == [0, 0, 0, 1, 1, 1]
    scores = load_detector("pixel_nn").fit(split.train.images).score_array(split.test.images)
    np.testing.assert_array_equal([image["score"] for image in content["images"]], scores)
    assert 0 <= content["auroc"] <= 1


def test_attack_certify_report_and_compare_go_together(trained, capsys) -> None:
    where = ["--detector", str(trained), "--limit", "3", "--n", "50", "--batch_size", "50"]
    assert certify([*where, "--radii", "0.1", "--no_baselines", "--output_dir", "certified"]) == console.DONE
    attack = [
        "attack",
        *where,
        "--curve",
        "0.1,0.2",
        "--steps",
        "2",
        "--eot",
        "2",
        "--output_dir",
        "attacked",
    ]
    capsys.readouterr()
    assert main([*attack, "--json", "--side", "both"]) == console.DONE
    content = json.loads(capsys.readouterr().out)
    assert [(row["condition"], row["side"]) for row in content["auroc"]] == [
        ("clean", "clean"), ("attack", "both"), ("attack", "both")
    ]  # fmt: skip
    assert {c.radius for c in read_run("attacked").conditions} == {0.0, 0.1, 0.2}
    assert main(["compare", "certified", "attacked", "--json", "--output_dir", "compared"]) == console.DONE
    compared = json.loads(capsys.readouterr().out)
    row = next(row for row in compared["rows"] if row["radius"] == 0.1)
    assert row["certified"] <= row["attacked"] <= 1
    assert main(["report", "certified", "--json"]) == console.DONE
    assert Path(json.loads(capsys.readouterr().out)["report"]).is_file()


def test_an_attack_leaves_the_clean_rows_of_a_certificate_alone(trained) -> None:
    where = [
        "--detector",
        str(trained),
        "--limit",
        "3",
        "--n",
        "50",
        "--batch_size",
        "50",
        "--output_dir",
        "both",
    ]
    assert certify([*where, "--radii", "0.1", "--no_baselines"]) == console.DONE
    (before,) = (c for c in read_run("both").conditions if c.condition == "clean")
    attack = ["attack", *where, "--eps", "0.1", "--steps", "1", "--eot", "2", "--checks", "none"]
    assert main(attack) == console.DONE
    conditions = read_run("both").conditions
    (after,) = (c for c in conditions if c.condition == "clean")
    assert after.threshold == before.threshold is not None
    assert np.array_equal(after.bounds.lower, before.bounds.lower)
    assert any(c.condition == "attack" for c in conditions)


@pytest.mark.parametrize("smoothing", ["plain", "none"])
def test_a_score_without_noise_is_attacked(smoothing, capsys) -> None:
    argv = ["attack", *DIGITS, "--limit", "3", "--steps", "2", "--eps", "8/255", "--norm", "linf"]
    assert main([*argv, "--smoothing", smoothing]) == console.DONE
    assert "8/255" in capsys.readouterr().out
    attacked = read_run("runs/attack-pixel_nn-digits-8")
    assert {c.n for c in attacked.conditions} == {0}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["score", "--detector", "pixel_n"], "neither the folder of a fitted detector nor one of"),
        (["attack", *DIGITS, "--eps", "0"], "no size above 0"),
        (["attack", *DIGITS, "--eps", "big"], "--eps: got 'big'"),
        (["attack", *DIGITS, "--smoothing", "input"], "--sigma 0.25"),
        (["attack", *DIGITS, "--device", "nowhere"], "device: 'nowhere'"),
        (["attack", *DIGITS, "--steps", "-1"], "steps"),
        (["report", "nowhere"], "no manifest.json here"),
        (["compare", "nowhere"], "no manifest.json here"),
        (["data", "mvtec:/nowhere"], "/nowhere"),
        (["data", "textures:gird"], "texture family"),
        (["data", "digits", "--sheet", "sheet.jpg"], "ends in .png"),
        (["data", "digits", "--transforms", "sheet"], "--transforms: got sheet"),
        (["select", "--detector", "pixel_nn"], "need a diffusion detector"),
    ],
)
def test_each_mistake_says_one_clear_thing(argv, message, capsys) -> None:
    err = refused(argv, capsys)
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1


def test_data_describes_the_parts_and_draws_sheets(capsys) -> None:
    argv = ["data", "digits", "--normal_class", "3", "--resolution", "8", "--limit", "5"]
    sheets = ["--sheet", "pictures/sheet.png", "--transforms", "pictures/transforms.png"]
    assert main([*argv, *sheets, "--json"]) == console.DONE
    content = json.loads(capsys.readouterr().out)
    split = load_data("digits", normal_class="3", resolution=8, limit=5)
    assert content["name"] == "digits:3"
    assert content["fingerprint"] == split.fingerprint()
    assert content["parts"]["test"]["normals"] == content["parts"]["test"]["anomalies"] == 5
    assert sum(content["parts"]["test"]["defects"].values()) == 5
    assert content["parts"]["train"] == {"normals": len(split.train), "anomalies": 0, "defects": {}}
    with Image.open("pictures/sheet.png") as sheet:
        assert sheet.size == (10 * (64 + 4), (2 + 2 + 1 + 1) * (64 + 4) + 4 * TITLE)
    with Image.open("pictures/transforms.png") as sheet:
        assert sheet.size == (100 + 10 * (64 + 4), 17 * (64 + 4))
    assert main(argv) == console.DONE
    out = capsys.readouterr().out
    assert split.fingerprint() in out
    assert "near_duplicate_auroc" in out
    assert "fitted on" in next(line for line in out.splitlines() if line.startswith("train "))
    assert main(["data", "digits"]) == console.DONE
    assert capsys.readouterr().out.startswith("digits:8  16 x 16, grey")


@pytest.mark.parametrize(("normal", "anomalous", "warned"), [(9, 4, True), (9, 8, False), (0, 0, False)])
def test_data_warns_where_normals_alone_look_like_train_images(
    normal: int, anomalous: int, warned: bool
) -> None:
    probe = {"near_duplicates_normal": normal, "test_normals": 10}
    probe |= {"near_duplicates_anomalous": anomalous, "test_anomalies": 10}
    hint = copies_hint(probe)
    assert (hint is not None) == warned
    if hint is not None:
        assert f"{normal}0% of the test normals" in hint
        assert f"of the anomalies {anomalous}0%" in hint


SELECT = ["--draws", "50", "--images", "3", "--batch_size", "50"]


@pytest.mark.parametrize("way", ["reference", "denoise", "input"])
def test_select_ranks_on_validation_and_names_the_flags(way, trained, capsys) -> None:
    argv = ["select", "--detector", str(trained), "--smoothing", way, *SELECT, "--patch_sizes", "2,3"]
    assert main([*argv, "--json", "--output_dir", "chosen"]) == console.DONE
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert json.loads(Path(f"chosen/selection-{way}.json").read_text()) == content
    found = content["candidates"]  # where nothing is certified, as with this network, the clean AUROC decides
    key = "merit" if any(max(one["certified"]) > 0.5 for one in found) else "clean"
    values = [one[key] for one in found]
    assert values == sorted(values, reverse=True)
    # two sigmas that training tried, four scores, and two inner sigmas where there are any
    assert len(found) == 2 * 4 * (1 if way == "reference" else 2)
    best = content["candidates"][0]
    assert f"best: certify --detector {trained} --smoothing {way} --sigma {best['sigma']:g}" in captured.err
    assert ("--inner_sigma" in captured.err) == (way != "reference")
    assert main([*argv, "--sigmas", "0.5", "--inner_sigmas", "0.25", "--radii", "0.1", "--scores", "l2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].split()[-3:] == ["mean", "r=0.1", "clean"]


def test_select_never_sees_a_test_image(trained, monkeypatch, capsys) -> None:
    from diffad.commands import select

    split = load_data("digits", normal_class="8", resolution=8)
    only = SimpleNamespace(validation=split.validation)  # nothing else to look at
    monkeypatch.setattr(select, "load_detector_and_data", lambda options: (load_detector(trained), only))
    assert main(["select", "--detector", str(trained), *SELECT]) == console.DONE
    assert capsys.readouterr().out.startswith("score")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sigmas", "0"], "--sigmas: got '0', need numbers above 0"),
        (["--inner_sigmas", "x"], "--inner_sigmas: got 'x'"),
        (["--scores", "l3"], "--scores: got 'l3'"),
        (["--scores", "paper"], "none of paper can be certified"),
        (["--patch_sizes", "3,x"], "--patch_sizes"),
        (["--radii", ""], "--radii"),
    ],
)
def test_select_refuses_what_it_cannot_try(options, message, trained, capsys) -> None:
    assert message in refused(["select", "--detector", str(trained), *SELECT, *options], capsys)
