"""What a detector or its backbone knew of the outlier sets is said, and recorded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffad import leakage
from diffad.backbones import Backbone, ResNet
from diffad.baselines.pixel_mean import PixelMean
from diffad.data import load_data
from diffad.ood_scores import MaxLogit

CLASSES = ["0", "1", "2", "3"]


@pytest.fixture(scope="module")
def split():
    return load_data(
        *("digits",),
        normal_class="0,1",
        protocol="ood",
        outliers=["rest", "textures:dots"],
        resolution=8,
        limit=30,
    )


def on(facts):
    with torch.random.fork_rng(devices=[]):
        network = ResNet(width=4, blocks=(1, 1), classes=4, in_channels=1)
    arguments = {"width": 4, "blocks": [1, 1], "classes": 4, "in_channels": 1}
    given = {"mean": [0.5], "std": [0.5], "resolution": 8, "facts": facts}
    return MaxLogit.from_backbone(Backbone(network, arch="resnet", arguments=arguments, **given))


def facts(**changes):
    return {"data": "digits", "classes": ["0", "1"], "training": {"seed": 0}, **changes}


def test_a_source_is_the_same_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert leakage.same_source("folder:data/mnist", f"folder:{tmp_path}/data/other/../mnist/")
    assert not leakage.same_source("folder:data/mnist", "folder:data/mnist2")
    assert leakage.seen_sources(["textures:dots", "mnist"], ["textures"]) == ["textures:dots"]
    assert leakage.seen_sources(["textures:dots", "mnist"], ["mnist", "rest"]) == ["mnist"]
    assert leakage.seen_sources(["textures"], ["textures:grid"]) == []


@pytest.mark.parametrize(
    ("detector", "training", "message"),
    [
        (PixelMean(), {"open_data": ["textures:dots", "mnist"]}, "was trained against textures:dots"),
        (PixelMean(), {"validation_open_data": ["textures:dots"]}, "was chosen on textures:dots"),
        (on(facts(classes=CLASSES)), {}, "trained on the classes 2, 3, which are tested on as unknown"),
        (on(facts(training={"seed": 3})), {}, "cut by seed 3, the test is cut by seed 0"),
        (on(facts(data="textures:dots", classes=["x"])), {}, "trained on textures:dots, which is tested on"),
    ],
)
def test_what_was_seen_is_said_and_recorded(
    detector, training, message: str, split, capsys: pytest.CaptureFixture[str]
) -> None:
    found = leakage.with_seen_sets(detector, split, training)
    assert message in found.probe["seen_in_training"]
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("known", [facts(), facts(data="cifar10", classes=CLASSES, training={"seed": 5}), {}])
def test_nothing_is_said_of_what_is_apart(known, split) -> None:
    assert leakage.with_seen_sets(on(known), split, {"open_data": ["transforms:jigsaw"]}) is split


def test_the_backbone_of_a_folder_is_known_by_the_name_of_the_folder(split) -> None:
    """A data set with a path has a colon in its own name."""
    there = replace(split, name="folder:some:0,1-vs-rest")
    found = leakage.with_seen_sets(on(facts(data="folder:some", classes=CLASSES)), there, {})
    assert "trained on the classes 2, 3" in found.probe["seen_in_training"]
    assert leakage.with_seen_sets(on(facts(data="folder:so", classes=CLASSES)), there, {}) is there
