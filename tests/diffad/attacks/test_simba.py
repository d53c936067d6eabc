import numpy as np
import pytest
import torch
from scipy.fft import dct
from torch import Tensor

from diffad.attacks import attack
from diffad.attacks.simba import dct_basis

SHAPE = (2, 6, 5)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
LABELS = [0, 1, 0, 1, 1, 0]
SIGNS = np.where(np.array(LABELS) == 0, 1.0, -1.0)
METHODS = ["simba", "simba_dct"]


def linear(points: Tensor) -> Tensor:
    return (points * WEIGHTS.to(points)).sum((1, 2, 3))


def images(count: int = 6) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


def gain(result) -> np.ndarray:
    return SIGNS * (result.scores - result.clean_scores)


@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_the_cosine_basis_is_orthonormal_and_that_of_scipy(size):
    basis = dct_basis(size)
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-12)
    signal = np.random.default_rng(0).standard_normal(size)
    np.testing.assert_allclose(basis @ signal, dct(signal, norm="ortho"), atol=1e-12)


def test_single_pixels_solve_a_linear_score_in_linf_within_two_queries_each():
    """Each pixel is tried downwards, then upwards: two queries each, and one for the start."""
    result = attack(linear, images(), LABELS, norm="linf", eps=0.2, method="simba", steps=2 * 60 + 1)
    np.testing.assert_allclose(gain(result), 0.2 * float(WEIGHTS.abs().sum()), rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "norm", "share"),
    [
        ("simba", "l2", 0.85),
        ("simba_dct", "l2", 0.9),
        ("simba_dct", "linf", 0.8),
    ],
)
def test_a_linear_score_comes_near_its_closed_form_optimum(method, norm, share):
    result = attack(linear, images(), LABELS, norm=norm, eps=0.2, method=method, steps=600)
    best = 0.2 * float(WEIGHTS.norm() if norm == "l2" else WEIGHTS.abs().sum())
    assert (gain(result) >= share * best).all()
    assert (gain(result) <= best * (1 + 1e-5)).all()


def test_low_frequencies_come_first():
    """A score of the mean alone is moved by the first waves, long before single pixels add up."""
    arguments = {"norm": "l2", "eps": 0.2, "steps": 12}
    clean = 0.5 * torch.ones(2, 1, 16, 16)
    waves, pixels = (
        attack(lambda x: x.mean((1, 2, 3)), clean, [0, 1], method=method, **arguments)
        for method in METHODS[::-1]
    )
    assert (abs(waves.scores - 0.5) > 3 * abs(pixels.scores - 0.5)).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_budget_batches_order_and_seed(method, norm):
    options = {"norm": norm, "eps": 0.2, "method": method, "steps": 150, "restarts": 2, "seed": 3}
    whole = attack(lambda x: (4 * linear(x.detach())).round(), images(), LABELS, **options)
    assert whole.info["score_queries"] == 150 * 2 * len(LABELS)
    assert whole.info["gradient_evaluations"] == 0
    assert (gain(whole) >= 2).all()
    split = attack(linear, images(), LABELS, batch_size=5, **options)
    order = [3, 1, 5, 0, 2, 4]
    shuffled = attack(linear, images()[order], [LABELS[row] for row in order], indices=order, **options)
    torch.testing.assert_close(shuffled.images, split.images[order], rtol=0, atol=1e-6)
    other = attack(linear, images(), LABELS, **options | {"seed": 4, "steps": 20})
    assert not torch.equal(other.images, attack(linear, images(), LABELS, **options | {"steps": 20}).images)
    one = attack(linear, images(), LABELS, **options | {"steps": 1, "restarts": 1})
    np.testing.assert_array_equal(one.scores, one.clean_scores)
