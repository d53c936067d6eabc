from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from certify import console
from certify.cli import main as certify
from diffad import load_detector
from diffad.backbones import Backbone, ResNet
from diffad.cli import main

NAMES = ("msp", "max_logit", "energy", "mahalanobis", "relative_mahalanobis", "openmax")


@pytest.fixture
def classifier(elsewhere: Path) -> str:
    """A network that tells the ten digits apart by chance."""
    arguments = {"width": 4, "blocks": [1, 1], "classes": 10}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1), classes=10)
    facts = {"classes": list("0123456789")}
    backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8, facts=facts)
    backbone.save_pretrained("backbone")
    return "backbone"


def fit(name: str, classifier: str, *options: str) -> int:
    argv = ["fit", "--detector", name, "--backbone", classifier, "--data", "digits", "--resolution", "8"]
    return main([*argv, *options, "--output_dir", f"./{name}-8"])


@pytest.mark.parametrize("name", NAMES)
def test_they_are_fitted_on_the_classes_of_the_data(
    name: str, classifier: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "relative_mahalanobis":
        assert fit(name, classifier) == console.FAILED
        assert "all training images are of class '8'" in capsys.readouterr().err
        return
    assert fit(name, classifier, "--normal_class", "3") == console.DONE
    shutil.rmtree(classifier)
    assert load_detector(f"./{name}-8").fit_info["labels_given"] == 1


def test_mahalanobis_is_certified_attacked_and_compared(classifier: str) -> None:
    assert fit("mahalanobis", classifier, "--ridge", "0.001") == console.DONE
    where = [
        "--detector",
        "./mahalanobis-8",
        "--limit",
        "2",
        "--n",
        "50",
        "--batch_size",
        "50",
        "--sigma",
        "0.25",
    ]
    assert certify([*where, "--radii", "0.05", "--no_baselines", "--output_dir", "certified"]) == console.DONE
    attack = ["attack", *where, "--curve", "0.05", "--steps", "2", "--eot", "2", "--checks", "none"]
    assert main([*attack, "--output_dir", "attacked"]) == console.DONE
    assert main(["compare", "certified", "attacked", "--output_dir", "compared"]) == console.DONE
    _, row = json.loads(Path("compared/compare.json").read_text())["rows"]
    assert (row["detector"], row["radius"]) == ("mahalanobis", 0.05)
    assert row["certified"] <= row["attacked"] <= row["clean"]


def test_options_of_others_are_refused(classifier: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--detector", "msp"]) == console.FAILED
    assert "--backbone: msp needs the folder of a network" in capsys.readouterr().err
    assert main(["fit", "--detector", "pca", "--backbone", classifier]) == console.FAILED
    assert "--backbone: pca takes none; use --detector zarnd or msp or" in capsys.readouterr().err


def test_outlier_sets_are_averaged_from_the_shell(
    classifier: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--protocol", "ood", "--normal_class", "0,1,2,3,4", "--outliers", "rest,digits"]
    assert fit("mahalanobis", classifier, *given) == console.FAILED  # the digits hold the normals too
    assert "are the same picture, one normal and one anomalous" in capsys.readouterr().err
    given[-1] = "rest"
    assert fit("mahalanobis", classifier, "--ridge", "0.001", *given) == console.DONE
    manifest = json.loads(Path("mahalanobis-8/manifest.json").read_text())
    assert {"roughness_auroc", "cue_resampling"} <= set(manifest["data"]["probe"])
    where = ["--detector", "./mahalanobis-8", "--limit", "4"]
    attack = [
        "attack",
        *where,
        "--smoothing",
        "plain",
        "--norm",
        "l2",
        "--eps",
        "0.1",
        "--steps",
        "3",
        "--checks",
        "none",
    ]
    assert main([*attack, "--output_dir", "attacked"]) == console.DONE
    assert main(["compare", "attacked", "--output_dir", "compared"]) == console.DONE
    found = json.loads(Path("compared/compare.json").read_text())
    (row,) = found["rows"]
    assert row["sets"] == {"rest": {"clean": row["clean"], "certified": None, "attacked": row["attacked"]}}
    (note,) = found["notes"]
    assert note.startswith("every AUROC is the unweighted mean over the outlier sets rest; its intervals")
    assert "By outlier set" in Path("compared/compare.html").read_text()
    capsys.readouterr()
    assert main(["score", *where]) == console.DONE
    assert "AUROC against rest" in capsys.readouterr().err
    assert main(["score", *where, "--json"]) == console.DONE
    scored = json.loads(capsys.readouterr().out)
    assert scored["auroc_sets"] == {"rest": scored["auroc"]}
