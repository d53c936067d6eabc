"""What several test files make: images, a backbone, players."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffad.atd import FeatureDiscriminator, FeatureGenerator
from diffad.atd.network import Players
from diffad.backbones import Backbone, ResNet


def images(seed: int, count: int = 12, side: int = 8) -> Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def backbone(side: int, channels: int = 1) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=channels)
    arguments = {"width": 4, "blocks": [1, 1], "classes": 0, "in_channels": channels}
    return Backbone(network, arch="resnet", arguments=arguments, mean=[0.5], std=[0.5], resolution=side)


def players(seed: int = 0, *, has_generator: bool = True, **options: Any) -> Players:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = FeatureDiscriminator(8, (12, 10, 6))
        generator = FeatureGenerator(8, (6, 10), latent=5) if has_generator else None
    return Players(discriminator, generator, **options).train()
