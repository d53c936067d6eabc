"""Other gradients of a reconstruction."""

import torch
from torch import Tensor

from diffad.attacks.gradients import held_constant, processes_of, run_checkpointed, straight_through

POINTS = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Wavy:
    def __init__(self) -> None:
        self.calls = 0

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return (noisy / sigma).sin()


def gradient(function, points: Tensor) -> tuple[Tensor, Tensor]:
    leaf = points.clone().requires_grad_()
    values = function(leaf, 0.5)
    (found,) = torch.autograd.grad(values.square().sum(), leaf)
    return values.detach(), found


def test_bpda_has_the_value_of_the_function_and_the_gradient_of_the_identity():
    values, found = gradient(straight_through(Wavy().reconstruct), POINTS)
    torch.testing.assert_close(values, (POINTS / 0.5).sin())
    torch.testing.assert_close(found, 2 * values)


def test_bpda_passes_a_gradient_through_what_has_none():
    values, found = gradient(straight_through(lambda noisy, sigma: (noisy * 4).round() / 4), POINTS)
    torch.testing.assert_close(values, (POINTS * 4).round() / 4)
    torch.testing.assert_close(found, 2 * values)


def test_a_checkpointed_step_is_computed_again_with_the_same_gradient():
    plain, again = Wavy(), Wavy()
    expected = gradient(plain.reconstruct, POINTS)
    found = gradient(lambda noisy, sigma: run_checkpointed(again.reconstruct, noisy, sigma), POINTS)
    assert (plain.calls, again.calls) == (1, 2)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_any_purifier_offers_an_approximation_and_more_if_it_says_so():
    class Chain(Wavy):
        def processes(self):
            return {"half": lambda noisy, sigma: noisy / 2}

    assert set(processes_of(Wavy(), residual=False)) == {"bpda"}
    assert set(processes_of(Wavy(), residual=True)) == {"bpda_constant"}
    assert set(processes_of(Chain(), residual=False)) == {"bpda", "half"}


def test_the_residual_has_no_gradient_under_the_identity_and_that_of_the_image_under_a_constant():
    def residual(process):
        return lambda points, sigma: points - process(points, sigma)

    values, found = gradient(residual(straight_through(Wavy().reconstruct)), POINTS)
    torch.testing.assert_close(found, torch.zeros_like(found))
    same, found = gradient(residual(held_constant(Wavy().reconstruct)), POINTS)
    torch.testing.assert_close(same, values)
    torch.testing.assert_close(found, 2 * values)
