from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from diffad.backbones import Backbone, ResNet

CLASSES = ("a", "b", "c")


@pytest.fixture
def build() -> Callable[..., Backbone]:
    """Makes a small random network whose logits of random images have mean 0 and standard deviation 1."""

    def backbone_of(classes: Sequence[str] = CLASSES) -> Backbone:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = ResNet(width=4, blocks=(1, 1), classes=len(classes))
        arguments = {"width": 4, "blocks": [1, 1], "classes": len(classes)}
        facts = {"classes": list(classes)}
        backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8, facts=facts)
        if classes:
            images = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(9))
            backbone.network.fc.weight /= backbone.logits(images).std(0)[:, None]
            backbone.network.fc.bias -= backbone.logits(images).mean(0)
        return backbone

    return backbone_of


@pytest.fixture
def backbone(build: Callable[..., Backbone]) -> Backbone:
    return build()
