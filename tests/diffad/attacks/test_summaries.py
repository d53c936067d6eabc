"""Stand-ins for a maximum or a minimum."""

import math

import pytest
import torch

from diffad.attacks.summaries import MAP_SUMMARIES, SHARPNESS, soft_maximum, soft_minimum, top_mean

VALUES = torch.rand(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def test_the_mean_of_the_largest_tenth():
    torch.testing.assert_close(top_mean(VALUES), VALUES.sort(1).values[:, -4:].mean(1))
    torch.testing.assert_close(top_mean(VALUES[:, :3]), VALUES[:, :3].amax(1))


def test_soft_values_bound_the_hard_ones_and_come_within_log_n_temperatures():
    largest, smallest = VALUES.amax(1), VALUES.amin(1)
    slack = math.log(40) / SHARPNESS
    assert (soft_maximum(VALUES) <= largest).all()
    assert (soft_maximum(VALUES) >= largest * (1 - slack)).all()
    assert (soft_minimum(VALUES) >= smallest).all()
    assert (soft_minimum(VALUES) <= smallest * (1 + slack)).all()


def test_soft_values_scale_with_their_input():
    torch.testing.assert_close(soft_maximum(1e-3 * VALUES), 1e-3 * soft_maximum(VALUES))
    torch.testing.assert_close(soft_minimum(1e3 * VALUES), 1e3 * soft_minimum(VALUES))


@pytest.mark.parametrize("function", [*MAP_SUMMARIES.values(), soft_minimum])
def test_more_than_one_place_is_pulled_and_zeros_are_no_trouble(function):
    leaf = VALUES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf).sum(), leaf)
    assert ((gradient > 1e-4).sum(1) > 1).all()
    torch.testing.assert_close(gradient.sum(1), torch.ones(3, dtype=torch.float64))
    zeros = torch.zeros(2, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(zeros).sum(), zeros)
    assert torch.isfinite(gradient).all()
