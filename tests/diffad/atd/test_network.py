from __future__ import annotations

import copy

import pytest
import torch
from parts import players
from torch import Tensor


def rows(seed: int, count: int = 9, width: int = 8) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("statistics", ["joint", "separate"])
def test_each_part_is_judged_by_itself_or_with_the_others(statistics: str) -> None:
    made = players(statistics=statistics)
    inside, outside, generated = rows(0), 3 + rows(1), rows(2)
    found = made(inside, outside, generated, None)
    twin = copy.deepcopy(players(statistics=statistics)).discriminator
    if statistics == "joint":
        together = twin(torch.cat([inside, outside, generated]))
        expected = together[:9], together[9:18], together[18:]
    else:
        expected = twin(inside), twin(outside), twin(generated)
    for one, other in zip((found.inside, found.outside, found.generated), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert found.fooling is None


@pytest.mark.parametrize("statistics", ["joint", "separate"])
def test_the_generators_logits_move_the_generator_alone(statistics: str) -> None:
    made = players(statistics=statistics)
    found = made(rows(0), rows(1), rows(2), rows(3, width=5))
    after = {name: buffer.clone() for name, buffer in made.discriminator.named_buffers()}
    twin = players(statistics=statistics)
    twin(rows(0), rows(1), rows(2), None)
    for name, buffer in twin.discriminator.named_buffers():
        assert torch.equal(buffer, after[name]), name  # its running statistics saw D's own step only
    found.fooling.sum().backward()
    assert all(parameter.grad is None for parameter in made.discriminator.parameters())
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in made.generator.parameters())


def test_what_a_frozen_generator_makes_has_no_gradient() -> None:
    made = players(train_generator=False)
    assert not any(parameter.requires_grad for parameter in made.generator.parameters())
    assert not made.train_generator
    assert not made.generate(rows(0, width=5)).requires_grad
    assert not players(has_generator=False).train_generator


def test_an_empty_open_set_has_no_logit() -> None:
    for statistics in ("joint", "separate"):
        assert players(statistics=statistics)(rows(0), rows(1)[:0], rows(2), None).outside.shape == (0,)
