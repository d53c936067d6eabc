"""Each check passes on a sound score and fires on its broken twin."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.attacks import attack_curve, pgd
from diffad.attacks.checks import check_eps_sweep, check_floor, check_gradient, check_noise_weaker

SHAPE = (1, 4, 4)
NORMAL = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
LABELS = [0, 1, 1]


def images(count: int = 3) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def distance(points: Tensor) -> Tensor:
    return torch.linalg.vector_norm((points - NORMAL.to(points)).flatten(1), dim=1)


def saturated(points: Tensor) -> Tensor:
    """A monotone function of the distance that is flat in float32 almost everywhere."""
    return torch.sigmoid(200 * (distance(points) - 0.05))


class CutGradient(torch.autograd.Function):
    """The distance with a gradient that has nothing to do with it."""

    @staticmethod
    def forward(ctx, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        return distance(points)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> Tensor:
        (points,) = ctx.saved_tensors
        return upstream.view(-1, 1, 1, 1) * torch.cos(1000 * points)


def test_the_eps_sweep_passes_on_a_curve_and_fires_on_a_shuffled_one():
    curve = attack_curve(partial(pgd, distance, images(), LABELS, norm="l2", steps=10), [0.0, 0.1, 0.5])
    assert check_eps_sweep(curve).passed
    broken = [curve[0], replace(curve[2], eps=0.1), replace(curve[1], eps=0.5)]
    assert not check_eps_sweep(broken).passed
    with pytest.raises(InputError, match="ascending"):
        check_eps_sweep(curve[::-1])


def test_eps_one_reaches_the_floor_of_a_sound_score_and_not_of_a_saturated_one():
    references = torch.cat([images(), NORMAL[None]])
    sound = check_floor(distance, images(), LABELS, references, steps=100)
    assert sound.passed, sound
    broken = check_floor(saturated, images(), LABELS, references, steps=100)
    assert not broken.passed


def test_the_gradient_check_tells_a_true_gradient_from_a_false_one():
    assert check_gradient(distance, images()).value > 0.999
    assert not check_gradient(CutGradient.apply, images()).passed
    # rounding passes a gradient straight through that the score does not have
    rounded = check_gradient(lambda x: distance(x + (x.round() - x).detach()), images())
    assert rounded.value == 0.0
    assert not rounded.passed


def test_noise_loses_to_a_sound_attack_and_beats_a_blind_one():
    sound = pgd(distance, images(), LABELS, norm="l2", eps=0.2)
    assert check_noise_weaker(distance, images(), sound).value == 0.0
    blind = pgd(CutGradient.apply, images(), LABELS, norm="l2", eps=0.2, steps=3)
    outcome = check_noise_weaker(distance, images(), blind)
    assert not outcome.passed
    assert outcome.value > 0.5
