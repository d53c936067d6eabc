"""Untrained networks small enough for tests, with weights that depend on the seed alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser

SHAPE = (1, 8, 8)


def build_denoiser(shape: tuple[int, int, int] = SHAPE, **options: Any) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = Denoiser.build(
            shape,
            **{"block_out_channels": (8, 8), "norm_num_groups": 4, "prediction_type": "sample", **options},
        )
    return built.eval()


def random_images(count: int, shape: tuple[int, ...] = SHAPE, *, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def build_detector(**options: Any) -> DiffusionDetector:
    detector = DiffusionDetector.from_denoiser(
        build_denoiser(), SHAPE, **{"draws": 3, "sigma": 0.5, "patch_size": 3, **options}
    )
    return detector.fit(random_images(12, seed=1))


@pytest.fixture(scope="session")
def tiny() -> SimpleNamespace:
    """`denoiser(shape, **options)`, `detector(**options)` and `images(count, shape, seed=)`."""
    return SimpleNamespace(
        denoiser=build_denoiser, detector=build_detector, images=random_images, shape=SHAPE
    )
