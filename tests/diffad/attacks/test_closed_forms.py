"""Gradient methods against exact optima: linear scores in ball and box, a distance, and one step of FGSM."""

import numpy as np
import pytest
import torch
from torch import Tensor

from diffad.attacks import attack

SHAPE = (3, 4, 4)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
BOTH = [0, 1, 0, 1, 1, 0]
SIGNS = np.array([1.0 if label == 0 else -1.0 for label in BOTH])
TOLERANCES = {"pgd": 1e-4, "apgd": 1e-4, "apgd_averaged": 1e-4, "pgd_constant": 1e-3, "momentum": 1e-3}


def linear(images: Tensor) -> Tensor:
    return (images * WEIGHTS.to(images)).sum((1, 2, 3))


def distance(images: Tensor) -> Tensor:
    return torch.linalg.vector_norm((images - 0.5).flatten(1), dim=1)


def images_around_grey(spread: float = 0.2) -> Tensor:
    noise = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))
    return 0.5 + spread * (noise - 0.5)


def images_across_the_box() -> Tensor:
    return torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2))


def both_kinds() -> Tensor:
    """Two images around grey, where the box does not bind below 0.4, and four across the box, where it does."""
    return torch.cat([images_around_grey()[:2], images_across_the_box()[2:]])


def best_gain(clean: Tensor, sign: float, norm: str, eps: float) -> float:
    """Return max of sign * w.delta over ball and box: each pixel by itself, or delta = clip(lambda w) by bisection."""
    weights, clean = sign * WEIGHTS.double(), clean.double()
    if norm == "linf":
        best = (clean + eps * weights.sign()).clamp(0, 1)
        return float((weights * (best - clean)).sum())
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        inside = float(((clean + middle * weights).clamp(0, 1) - clean).norm()) <= eps
        low, high = (middle, high) if inside else (low, middle)
    return float((weights * ((clean + low * weights).clamp(0, 1) - clean)).sum())


def gains(score, images: Tensor, **arguments) -> np.ndarray:
    result = attack(score, images, BOTH, **arguments)
    return SIGNS * (result.scores - result.clean_scores)


# A constant step has 2.5 eps of path, momentum has eps: too short in L2 once many pixels are at the box.
CASES = [(method, "linf", 0.3) for method in TOLERANCES]
CASES += [(method, "l2", eps) for method in ("pgd", "apgd", "apgd_averaged") for eps in (0.4, 3.5)]
CASES += [("pgd_constant", "l2", 0.4)]


@pytest.mark.parametrize(("method", "norm", "eps"), CASES)
def test_a_linear_score_reaches_its_optimum_in_ball_and_box(method, norm, eps):
    images = both_kinds()
    expected = [best_gain(image, sign, norm, eps) for image, sign in zip(images, SIGNS, strict=True)]
    result = attack(linear, images, BOTH, norm=norm, eps=eps, method=method, steps=1000)
    np.testing.assert_allclose(
        SIGNS * (result.scores - result.clean_scores), expected, rtol=TOLERANCES[method]
    )
    bound = ((result.images == 0) | (result.images == 1)).flatten(1).any(1)
    assert (
        bound.tolist() == [eps > 3] * 2 + [True] * 4 or method == "momentum"
    )  # the box binds where it should


def test_the_oracle_agrees_with_the_dual_norms_where_the_box_does_not_bind():
    for norm, dual in (("l2", WEIGHTS.norm()), ("linf", WEIGHTS.abs().sum())):
        gain = best_gain(images_around_grey()[0], 1.0, norm, 0.1)
        assert gain == pytest.approx(0.1 * float(dual), rel=1e-6)


@pytest.mark.parametrize("images", [images_around_grey(), images_across_the_box()], ids=["inside", "box"])
def test_one_step_of_fgsm_is_exact_in_linf(images):
    expected = [best_gain(image, sign, "linf", 0.3) for image, sign in zip(images, SIGNS, strict=True)]
    np.testing.assert_allclose(
        gains(linear, images, norm="linf", eps=0.3, method="fgsm"), expected, rtol=1e-5
    )


def test_one_step_of_fgsm_is_exact_in_l2_inside_the_box():
    reached = gains(linear, images_around_grey(), norm="l2", eps=0.1, method="fgsm")
    np.testing.assert_allclose(reached, 0.1 * float(WEIGHTS.norm()), rtol=1e-5)


@pytest.mark.parametrize("method", ["pgd", "apgd", "apgd_averaged", "momentum"])
def test_a_distance_reaches_its_worst_case_on_both_sides(method):
    reached = gains(distance, images_around_grey(0.4), norm="l2", eps=0.1, method=method, steps=100)
    np.testing.assert_allclose(reached, 0.1, rtol=1e-4)
