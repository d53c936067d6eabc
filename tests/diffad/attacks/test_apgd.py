import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import Tensor

from diffad.attacks import attack
from diffad.attacks.apgd import checkpoints

SHAPE = (1, 4, 4)
BOTH = [0, 1, 0, 1, 1, 0]


def some_images(count: int = 6) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(2))


def test_checkpoints_are_those_of_the_paper():
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(50) == [11, 21, 30, 38, 45]
    assert checkpoints(1) == []
    for steps in range(2, 60):
        reviews = checkpoints(steps)
        assert reviews == sorted(set(reviews))
        assert reviews[-1] < steps


def ridge(images: Tensor) -> Tensor:
    """A narrow ridge across the ball: a step that does not shrink jumps over it to and fro."""
    flat = (images - 0.5).flatten(1)
    return flat[:, 1] - 300.0 * (flat[:, 0] - 0.03).square()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_step_shrinks_for_the_images_that_need_it_and_for_no_other(norm):
    """Half of the images meet the ridge, the others a plane, whose step stays long; each as if it were alone."""
    steep = torch.tensor([True, False, True, False])

    def score(images: Tensor) -> Tensor:
        return torch.where(images[:, 0, 3, 3] > 0.5, ridge(images), images.mean((1, 2, 3)))

    images = torch.full((4, *SHAPE), 0.5)
    images[:, 0, 3, 3] = torch.where(steep, 1.0, 0.0)
    result = attack(score, images, [0] * 4, norm=norm, eps=0.1, method="apgd", steps=100)
    reached = result.scores[steep.numpy()]
    best = 0.1 if norm == "linf" else (0.1**2 - 0.03**2) ** 0.5
    np.testing.assert_allclose(reached, best, rtol=0.02)
    alone = attack(score, images[:1], [0], norm=norm, eps=0.1, method="apgd", steps=100)
    np.testing.assert_allclose(reached, alone.scores[0], rtol=1e-6)


def test_it_reaches_what_a_constant_step_of_the_same_budget_does_not():
    images = torch.full((1, *SHAPE), 0.5)
    arguments = {"norm": "linf", "eps": 0.1, "steps": 20}
    adaptive = attack(ridge, images, [0], method="apgd", **arguments)
    constant = attack(ridge, images, [0], method="pgd_constant", **arguments)
    assert adaptive.scores[0] > constant.scores[0]


def test_it_spends_the_gradients_it_is_given_and_one_score():
    result = attack(ridge, some_images(), BOTH, norm="l2", eps=0.1, method="apgd", steps=30, restarts=2)
    assert result.info["gradient_evaluations"] == 6 * 2 * 30
    assert result.info["score_queries"] == 6 * 2
    assert result.trace.shape == (6, 31)


def test_a_background_without_gradient_does_not_stay_where_it_is():
    """At a corner of the box, and at a reference, half the coordinates have no gradient; all of them can pay."""
    images = torch.zeros(1, *SHAPE)
    images[..., :2, :] = 0.5

    def distance(points: Tensor) -> Tensor:
        reference = torch.where(images == 0.5, 0.4, 0.0)
        return torch.linalg.vector_norm((points - reference).flatten(1), dim=1)

    arguments = {"norm": "linf", "eps": 0.1, "steps": 50}
    reached = attack(distance, images, [0], method="apgd", **arguments).scores[0]
    assert reached == pytest.approx((8 * 0.2**2 + 8 * 0.1**2) ** 0.5, rel=1e-5)
    assert attack(distance, images, [0], method="pgd", **arguments).scores[0] < 0.95 * reached


def lowest_maximum(weights: np.ndarray, eps: float) -> float:
    """Return min over |d|_inf <= eps of max_k w_k.d, as a linear programme in (d, t): minimise t, w_k.d - t <= 0."""
    count, size = weights.shape
    found = linprog(
        [0.0] * size + [1.0],
        A_ub=np.hstack([weights, -np.ones((count, 1))]),
        b_ub=np.zeros(count),
        bounds=[(-eps, eps)] * size + [(None, None)],
    )
    return float(found.fun)


@pytest.mark.parametrize("seed", range(3))
def test_a_running_sum_of_gradients_lowers_a_maximum_that_single_ones_do_not(seed):
    """The gradient of a maximum is that of one part; lowering it lifts others, which take their turn."""
    weights = torch.randn(8, 16, generator=torch.Generator().manual_seed(seed))

    def highest(images: Tensor) -> Tensor:
        return ((images - 0.5).flatten(1) @ weights.T.to(images)).amax(1)

    images = torch.full((1, *SHAPE), 0.5)
    arguments = {"norm": "linf", "eps": 0.1, "steps": 100}
    averaged = attack(highest, images, [1], method="apgd_averaged", **arguments).scores[0]
    alone = attack(highest, images, [1], method="apgd", **arguments).scores[0]
    best = lowest_maximum(weights.double().numpy(), 0.1)
    assert best - 1e-6 <= averaged < 0.97 * best  # best is below 0
    assert alone > 0.5 * best
