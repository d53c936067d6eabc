import numpy as np
import pytest
import torch
from torch import Tensor

from diffad.attacks import attack
from diffad.attacks.momentum import momentum_ascent
from diffad.attacks.threat import ThreatModel


def test_it_keeps_going_where_the_gradient_flips():
    """Two large steps up, then a gradient of the opposite sign and half the size: the sum still points up."""
    clean = torch.full((1, 1, 2, 2), 0.5)
    signs = iter([1.0, 1.0, -1.0, 1.0])
    visited = []

    def gradient(points: Tensor, step: int) -> Tensor:
        visited.append(float(points[0, 0, 0, 0]))
        return torch.full_like(points, next(signs))

    last = momentum_ascent(gradient, ThreatModel("linf", 0.2), clean, clean, 4)
    np.testing.assert_allclose([*visited, float(last[0, 0, 0, 0])], [0.5, 0.55, 0.6, 0.65, 0.7], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_size_of_a_gradient_does_not_matter(scale):
    clean = torch.full((1, 1, 2, 2), 0.5)
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5]).view(1, 1, 2, 2)
    last = momentum_ascent(lambda points, step: scale * weights, ThreatModel("l2", 0.2), clean, clean, 5)
    torch.testing.assert_close(last, clean + 0.2 * weights / weights.norm(), rtol=1e-5, atol=1e-6)


def test_a_zero_gradient_moves_nothing_and_raises_nothing():
    images = torch.full((2, 1, 2, 2), 0.5)
    result = attack(
        lambda x: 0 * x.sum((1, 2, 3)), images, [0, 1], norm="l2", eps=0.1, method="momentum", steps=3
    )
    torch.testing.assert_close(result.images, images, rtol=0, atol=0)
