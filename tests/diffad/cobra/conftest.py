"""A small filter on pictures that are quick to tell apart.

The folder is put on the path for `halves`, which is a script too: pytest's importlib mode does not add it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffad.backbones import Backbone, ResNet
from diffad.cobra.classifier import ClassifierConfig, train_classifier
from diffad.cobra.crafting import Crafting
from diffad.cobra.filter import NormalityFilter, fit_filter
from diffad.cobra.mixture import Mixture
from diffad.data import load_data
from diffad.data.transforms import TRANSFORMS
from diffad.data.transforms.base import Draw, Drawn, HardTransform, Rng, Shape

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def eights() -> Tensor:
    """Normal digits 16 x 16, read-only: 96 + 17 of class 8."""
    split = load_data("digits", normal_class=8)
    return torch.cat([split.train.images, split.calibration.images])


@pytest.fixture(scope="session")
def trained(eights: Tensor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Path]:
    """A classifier of all transforms trained for a few seconds, and its folder."""
    folder = tmp_path_factory.mktemp("classifier")
    return train_classifier(eights[:60], small(folder, max_train_steps=60), held_out=eights[60:]), folder


@pytest.fixture(scope="session")
def normality(eights: Tensor, trained: tuple[Backbone, Path]) -> NormalityFilter:
    """A filter with 53 held-out normals."""
    return fit_filter(eights[:60], trained[0], held_out=eights[60:])


@pytest.fixture(scope="session")
def accepts_nothing() -> NormalityFilter:
    """A filter to which every image is as likely as any normal."""
    mixture = Mixture.fit(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(29, 4))
    mixture.held_out = torch.full((29,), -torch.inf, dtype=torch.float64)
    network = ResNet(width=4, blocks=(1,), classes=0, in_channels=1)
    arguments = {"width": 4, "blocks": [1], "classes": 0, "in_channels": 1}
    return NormalityFilter(Backbone(network, arch="resnet", arguments=arguments, resolution=16), mixture)


class Identity(HardTransform):
    """Changes nothing."""

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        return {"nothing": 0}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        return images


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> Crafting:
    """Crafting that leaves images as they are, tried three times."""
    monkeypatch.setitem(TRANSFORMS, "identity", Identity())
    return Crafting(transforms=("identity",), fewest=1, most=1, cap=3)


def small(folder: Path, **changes: object) -> ClassifierConfig:
    options = {
        "width": 4,
        "blocks": (1, 1),
        "train_batch_size": 64,
        "lr_warmup_steps": 2,
        "learning_rate": 4e-3,
    }
    return ClassifierConfig(output_dir=str(folder), **{**options, "evaluation_images": 20, **changes})
