from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor


class Shrink:
    """R(y) = 0.8 y, S = ||x - R||, A = ||x||: every way is defined, L = 1."""

    pair_lipschitz = 1.0
    lipschitz = 1.0

    def score(self, images: Tensor) -> Tensor:
        return images.flatten(1).norm(dim=1)

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        return 0.8 * noisy

    def score_pair(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        assert reference.shape == reconstruction.shape
        return (reference - reconstruction).flatten(1).norm(dim=1)

    def score_interval(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        exact = images.double().flatten(1).norm(dim=1).numpy()
        return exact - 1e-12, exact + 1e-12


@pytest.fixture
def shrink() -> Shrink:
    return Shrink()


@pytest.fixture
def images() -> Tensor:
    return 0.2 + 0.6 * torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
