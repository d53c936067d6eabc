import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from diffad.atd.network import Judged
from diffad.atd.objective import discriminator_loss, generator_loss


def test_the_losses_are_those_of_a_hand_computed_case() -> None:
    judged = Judged(torch.tensor([0.0, 2.0]), torch.tensor([-1.0]), torch.full((2,), 3.0), torch.ones(2))
    inside = (math.log(2) + math.log1p(math.exp(-2))) / 2
    expected = inside + 0.3 * math.log1p(math.exp(-1)) + 0.7 * math.log1p(math.exp(3))
    assert float(discriminator_loss(judged, 0.3)) == pytest.approx(expected, rel=1e-6)
    assert float(generator_loss(judged)) == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)


@given(st.lists(st.floats(-12, 12), min_size=3, max_size=3), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_losses_are_the_papers_binary_cross_entropy(values: list[float], alpha: float) -> None:
    inside, outside, made = torch.tensor(values, dtype=torch.float64)[:, None].unbind()
    ones, zeros = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def entropy(logit: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy(logit.sigmoid(), target)

    expected = entropy(inside, ones) + alpha * entropy(outside, zeros) + (1 - alpha) * entropy(made, zeros)
    found = discriminator_loss(Judged(inside, outside, made, made), alpha)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        generator_loss(Judged(inside, outside, made, made)).double(),
        entropy(made, ones),
        rtol=1e-4,
        atol=1e-5,
    )


def test_parts_that_are_not_there_have_no_term() -> None:
    inside, nothing = torch.tensor([1.0]), torch.zeros(0)
    alone = float(F.softplus(-inside))
    assert float(discriminator_loss(Judged(inside, nothing, None, None), 0.0)) == pytest.approx(alone)
    with_open = discriminator_loss(Judged(inside, torch.tensor([0.0]), None, None), 1.0)
    assert float(with_open) == pytest.approx(alone + math.log(2))


def test_a_loss_far_from_the_boundary_keeps_its_gradient() -> None:
    logit = torch.tensor([40.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(
        discriminator_loss(Judged(logit, torch.zeros(0), None, None), 0.5), logit
    )
    assert float(gradient) < 0  # a sigmoid's cross entropy gives exactly 0 from a logit of 17 on
    saturated = logit.detach().clone().requires_grad_()
    (lost,) = torch.autograd.grad(F.binary_cross_entropy(saturated.sigmoid(), torch.ones(1)), saturated)
    assert float(lost) == 0
