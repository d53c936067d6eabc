import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certify.checks import InputError
from diffad.attacks import Material, attack

LABELS = [0, 1, 0, 1]
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
WEIGHTS = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3))


def linear(images: Tensor) -> Tensor:
    return (images * WEIGHTS).sum((1, 2, 3))


def in_steps(images: Tensor) -> Tensor:
    """The same score, without gradient."""
    return (linear(images.detach()) * 100).round() / 100


def elsewhere(images: Tensor) -> Tensor:
    return (images * WEIGHTS.flip(2)).sum((1, 2, 3))


@pytest.fixture
def images() -> Tensor:
    return 0.5 + 0.2 * (torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5)


@pytest.mark.parametrize(("norm", "dual"), [("l2", WEIGHTS.norm()), ("linf", WEIGHTS.abs().sum())])
def test_a_detector_without_gradient_falls_to_a_source_that_has_one(images, norm, dual):
    material = Material(sources={"twin": linear})
    result = attack(in_steps, images, LABELS, norm=norm, eps=0.1, method="transfer", material=material)
    np.testing.assert_allclose(SIGNS * (result.scores - result.clean_scores), 0.1 * float(dual), atol=0.011)
    assert result.info["score_queries"] == 4 * 2
    assert result.info["gradient_evaluations"] == 4 * 51


def test_of_several_sources_the_one_that_transfers_counts(images):
    arguments = {"norm": "linf", "eps": 0.1, "method": "transfer", "steps": 5}
    both = attack(
        in_steps, images, LABELS, material=Material(sources={"far": elsewhere, "twin": linear}), **arguments
    )
    twin = attack(in_steps, images, LABELS, material=Material(sources={"twin": linear}), **arguments)
    far = attack(in_steps, images, LABELS, material=Material(sources={"far": elsewhere}), **arguments)
    np.testing.assert_array_equal(both.scores, twin.scores)
    assert (SIGNS * both.scores > SIGNS * far.scores).all()


def test_sources_must_be_given_and_sound(images):
    arguments = {"norm": "l2", "eps": 0.1, "method": "transfer"}
    with pytest.raises(InputError, match="needs other detectors"):
        attack(linear, images, LABELS, **arguments)
    with pytest.raises(InputError, match="no gradient"):
        attack(linear, images, LABELS, material=Material(sources={"steps": in_steps}), **arguments)
    trained = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 1), nn.Flatten(0))
    with pytest.raises(InputError, match="training mode"):
        attack(linear, images, LABELS, material=Material(sources={"trained": trained}), **arguments)
