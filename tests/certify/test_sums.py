"""Sums of percentiles over noise levels, on scores whose worst case is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtri

from certify.certificate import certified_radius, certify_scores
from certify.checks import InputError
from certify.sums import NoiseLevel, certify_sum, sum_bounds, sum_radius, sum_scores
from certify.types import ScoreBounds

N, ALPHA = 20_000, 0.001
LEVELS = (np.arange(N) + 0.5) / N
RADII = (0.0, 0.1, 0.25, 0.5)
SIGMAS, WEIGHTS = (0.25, 0.5, 1.0), (2.0, 1.0, 0.5)


def linear_draws(norm_w: float, mean: float, sigmas=SIGMAS) -> list[np.ndarray]:
    """Quantiles of w.x + b under the noise of each level: nothing here depends on luck."""
    return [(mean + sigma * norm_w * ndtri(LEVELS))[None] for sigma in sigmas]


def test_a_linear_score_is_certified_exactly_up_to_confidence() -> None:
    """Every level's median is w.x + b, so the worst sum is (w.x + b -/+ r |w|) times the sum of the weights."""
    norm_w, mean, total = 3.0, 1.0, sum(WEIGHTS)
    levels = [NoiseLevel(*pair) for pair in zip(SIGMAS, WEIGHTS, strict=True)]
    draws = linear_draws(norm_w, mean)
    bounds = certify_sum(draws, levels, RADII, ALPHA)
    for row, radius in enumerate(RADII):
        slack = 0.2 * total
        assert (
            total * (mean - radius * norm_w) - slack
            < bounds.lower[row, 0]
            <= total * (mean - radius * norm_w)
        )
        assert (
            total * (mean + radius * norm_w)
            <= bounds.upper[row, 0]
            < total * (mean + radius * norm_w) + slack
        )
    assert sum_scores(draws, levels)[0] == pytest.approx(total * mean, abs=1e-3)


def test_each_level_pays_its_share_of_alpha_and_its_own_lipschitz_term() -> None:
    levels = [NoiseLevel(0.25, 2.0, 1.0, 0.4), NoiseLevel(0.5, 1.0, 0.0, 0.6)]
    scores = np.random.default_rng(0).normal(size=(2, 5, 400))
    bounds = certify_sum(list(scores), levels, RADII, ALPHA)
    first = certify_scores(scores[0], 0.25, RADII, ALPHA / 2, 1.0, 0.4)
    second = certify_scores(scores[1], 0.5, RADII, ALPHA / 2, 0.0, 0.6)
    np.testing.assert_allclose(bounds.lower, 2 * first.lower + second.lower, rtol=1e-12)
    np.testing.assert_allclose(bounds.upper, 2 * first.upper + second.upper, rtol=1e-12)
    assert (bounds.lower <= 2 * first.lower + second.lower).all()


def test_the_tight_construction_is_attained_and_needs_every_lipschitz_term() -> None:
    """R_t(y) = x + (C - <y - x, e>) e on every level: an attack of size r along e lowers each percentile by 2 r."""
    height, radius = 5.0, 0.2
    draws = [(height - sigma * ndtri(LEVELS))[None] for sigma in SIGMAS]
    attacked = sum(WEIGHTS) * (height - 2 * radius)
    split = [NoiseLevel(sigma, weight, 1.0) for sigma, weight in zip(SIGMAS, WEIGHTS, strict=True)]
    lower = certify_sum(draws, split, [radius], ALPHA).lower[0, 0]
    assert attacked - 0.2 < lower <= attacked
    for dropped in range(3):
        wrong = [NoiseLevel(t.sigma, t.weight, t.lipschitz * (i != dropped)) for i, t in enumerate(split)]
        assert (
            certify_sum(draws, wrong, [radius], ALPHA).lower[0, 0] > lower + 0.9 * WEIGHTS[dropped] * radius
        )
    plain = [NoiseLevel(sigma, weight) for sigma, weight in zip(SIGMAS, WEIGHTS, strict=True)]
    assert certify_sum(draws, plain, [radius], ALPHA).lower[0, 0] > attacked


def test_one_level_is_the_smoothed_detector() -> None:
    scores = np.random.default_rng(1).normal(size=(4, 300))
    level = NoiseLevel(0.5, 1.0, 0.7, 0.4)
    alone = certify_scores(scores, 0.5, RADII, ALPHA, 0.7, 0.4)
    bounds = certify_sum([scores], [level], RADII, ALPHA)
    assert np.array_equal(bounds.lower, alone.lower)
    assert np.array_equal(bounds.upper, alone.upper)


def test_infinite_ends_stay_infinite_and_rounding_goes_outwards() -> None:
    parts = [
        ScoreBounds(np.array([-np.inf, 0.1, 0.1]), np.array([1.0, np.inf, 0.1])),
        ScoreBounds(np.array([0.5, 0.2, 0.2]), np.array([np.inf, 0.3, 0.2])),
    ]
    bounds = sum_bounds(parts, [1.0, 3.0])
    assert bounds.lower[0] == -np.inf
    assert bounds.upper[0] == bounds.upper[1] == np.inf
    assert bounds.lower[1] < 0.1 + 3 * 0.2
    assert bounds.lower[2] < 0.7 < bounds.upper[2]
    assert bounds.upper[2] - bounds.lower[2] < 1e-15
    assert sum_bounds(parts[:1], [1.0]) is parts[0]


@pytest.mark.parametrize("side", ["anomalous", "normal"])
@pytest.mark.parametrize("lipschitz", [0.0, 1.0])
def test_the_radius_of_one_level_is_the_certified_radius(side, lipschitz) -> None:
    scores = np.random.default_rng(2).normal(0.6 if side == "anomalous" else -0.6, 0.4, size=(20, 300))
    scores[3, :5] = np.nan
    expected = certified_radius(scores, 0.0, 0.5, 0.01, side, lipschitz, 0.4)
    found = sum_radius([scores], [NoiseLevel(0.5, 1.0, lipschitz, 0.4)], 0.0, 0.01, side)
    assert (expected > 0.0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_radius_is_where_the_bound_crosses_the_threshold() -> None:
    """Duality with `certify_sum`: certified just below the radius, not just above it."""
    generator = np.random.default_rng(3)
    draws = [generator.normal(shift, 0.3, size=(8, 500)) for shift in (0.5, 0.8)]
    levels = [NoiseLevel(0.5, 1.0, 1.0), NoiseLevel(1.0, 0.5, 0.2, 0.4)]
    for threshold, side in ((0.3, "anomalous"), (1.6, "normal")):
        radii = sum_radius(draws, levels, threshold, 0.01, side)
        assert (radii > 0.0).all()
        for image, radius in enumerate(radii):
            inside, outside = (
                certify_sum(draws, levels, [radius * factor], 0.01) for factor in (1 - 1e-9, 1 + 1e-9)
            )
            if side == "anomalous":
                assert inside.lower[0, image] > threshold >= outside.lower[0, image]
            else:
                assert inside.upper[0, image] <= threshold < outside.upper[0, image]


def test_no_radius_where_nothing_is_certified_and_none_beyond_the_reach_of_a_level() -> None:
    draws = [np.full((1, 100), 5.0), np.full((1, 100), 5.0)]
    levels = [NoiseLevel(0.1), NoiseLevel(1.0)]
    assert sum_radius(draws, levels, 20.0, 0.01, "anomalous") == 0.0
    most = sum_radius(draws, levels, 0.0, 0.01, "anomalous")[0]
    alone = certified_radius(draws[0], 0.0, 0.1, 0.005, "anomalous")[0]
    assert most == pytest.approx(alone, rel=1e-9)  # the level of least noise gives out first
    few = [np.full((1, 3), 5.0)] * 2
    assert sum_radius(few, levels, 0.0, 0.01, "anomalous") == 0.0


def test_the_radius_exceeds_the_true_one_no_more_often_than_alpha() -> None:
    """It is chosen from the draws, and still holds at alpha: a linear score has its true radius in closed form."""
    alpha, truth, trials = 0.05, 0.2, 2000
    generator = np.random.default_rng(4)
    levels = [NoiseLevel(0.25), NoiseLevel(0.5)]
    draws = [truth + level.sigma * generator.normal(size=(trials, 100)) for level in levels]
    share = float((sum_radius(draws, levels, 0.0, alpha, "anomalous") > truth).mean())
    assert share <= alpha


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "one array a level"),
        ([NoiseLevel(0.5)], "one array a level"),
        ([NoiseLevel(0.5, 0.0)] * 2, "weights"),
    ],
)
def test_levels_that_do_not_fit_are_refused(levels, message) -> None:
    draws = [np.zeros((2, 10))] * 2
    for call in (
        lambda: certify_sum(draws, levels, RADII, ALPHA),
        lambda: sum_scores(draws, levels),
        lambda: sum_radius(draws, levels, 0.0, ALPHA, "normal"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_parts_that_do_not_fit_are_refused() -> None:
    one, two = ScoreBounds.exact(np.zeros(1)), ScoreBounds.exact(np.zeros(2))
    for parts, weights, message in (
        ([], [], "one of each"),
        ([one], [1.0, 1.0], "one of each"),
        ([one, two], [1.0, 1.0], "equal ones"),
        ([one, one], [1.0, -1.0], "above 0"),
    ):
        with pytest.raises(InputError, match=message):
            sum_bounds(parts, weights)
    with pytest.raises(InputError, match="equal numbers"):
        certify_sum([np.zeros((1, 5)), np.zeros((2, 5))], [NoiseLevel(1.0)] * 2, RADII, ALPHA)
    with pytest.raises(InputError, match="finite"):
        sum_radius([np.zeros((1, 5))], [NoiseLevel(1.0)], np.nan, ALPHA, "normal")
