from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from certify.bounds import alpha_per_image
from certify.certificate import certify_scores, percentile_scores
from certify.metrics import auroc
from certify.types import ScoreBounds
from diffad.planned import planned_auroc, planned_bounds

LABELS = np.array([0] * 5 + [1] * 5)


def draws(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((10, n)) + LABELS[:, None]


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("percentile", [0.3, 0.5, 0.8])
def test_with_as_many_draws_as_planned_the_bounds_are_the_certificate(radius, percentile) -> None:
    n, sigma, constant, level = 1000, 0.25, 0.7, 1e-4
    scores = draws(n)
    exact = certify_scores(scores, sigma, [radius], level, constant, percentile).at(0)
    planned = planned_bounds(np.sort(scores, axis=1), radius, sigma, constant, percentile, n, level)
    np.testing.assert_allclose(planned.lower, exact.lower, rtol=0, atol=1e-12)
    np.testing.assert_allclose(planned.upper, exact.upper, rtol=0, atol=1e-12)
    assert np.isfinite(exact.lower).all()


def test_fewer_draws_come_near() -> None:
    many, few = (
        planned_bounds(np.sort(draws(n), axis=1), 0.1, 0.25, 0.0, 0.5, 1000, 1e-4) for n in (1000, 200)
    )
    assert float(np.abs(few.lower - many.lower).max()) < 0.5


def test_a_radius_out_of_reach_of_the_plan_certifies_nothing() -> None:
    bounds = planned_bounds(np.sort(draws(100), axis=1), 2.0, 0.25, 0.0, 0.5, 1000, 1e-4)
    assert np.isneginf(bounds.lower).all()
    assert np.isposinf(bounds.upper).all()
    assert planned_auroc(
        draws(100),
        LABELS,
        sigma=0.25,
        lipschitz=0.0,
        percentile=0.5,
        radii=(2.0,),
        planned_n=1000,
        alpha=1e-3,
    )[1] == (0.0,)


def test_one_end_alone_may_be_out_of_reach() -> None:
    bounds = planned_bounds(np.sort(draws(100), axis=1), 0.4, 0.25, 0.0, 0.9, 300, 1e-3)
    assert np.isfinite(bounds.lower).all()
    assert np.isposinf(bounds.upper).all()


def test_the_auroc_is_that_of_the_bounds_and_falls_with_the_radius() -> None:
    scores, radii = draws(1000), (0.0, 0.1, 0.2, 0.4)
    plan = {"sigma": 0.5, "lipschitz": 0.3, "percentile": 0.7, "planned_n": 1000, "alpha": 0.01}
    clean, certified = planned_auroc(scores, LABELS, radii=radii, **plan)
    assert clean == auroc(ScoreBounds.exact(percentile_scores(scores, 0.7)), LABELS)
    exact = certify_scores(scores, 0.5, radii, alpha_per_image(0.01, 10), 0.3, 0.7)
    assert certified == pytest.approx(tuple(auroc(exact, LABELS)))
    assert list(certified) == sorted(certified, reverse=True)
    assert clean >= certified[0] > certified[-1]


def test_the_smoothed_score_of_gaussian_draws_is_their_quantile() -> None:
    """Ranks planned for many draws leave only the shift of the theorem: Phi^-1(p) -/+ r / sigma."""
    ordered = np.sort(np.random.default_rng(1).standard_normal((3, 200_000)), axis=1)
    bounds = planned_bounds(ordered, 0.5, 0.5, 0.0, 0.7, 10_000_000, 0.01)
    assert bounds.lower == pytest.approx(norm.ppf(0.7) - 1.0, abs=0.02)
    assert bounds.upper == pytest.approx(norm.ppf(0.7) + 1.0, abs=0.02)
