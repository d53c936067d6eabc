from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import binom, binomtest

from certify.bounds import clopper_pearson_lower, max_radius
from certify.certificate import (
    certified_radius,
    certify_scores,
    invalid_draws,
    lipschitz_bounds,
    lipschitz_radius,
    percentile_scores,
    predict_scores,
)
from certify.checks import InputError

SIGMA, ALPHA = 0.25, 0.001


def every_count(n: int) -> np.ndarray:
    """All samples of a Bernoulli score up to order: row c holds c zeros and n - c ones."""
    return (np.arange(n)[None] >= np.arange(n + 1)[:, None]).astype(np.float64)


@pytest.mark.parametrize("lipschitz", [0.0, 0.7])
def test_bounds_are_the_order_statistics_at_the_golden_ranks(lipschitz: float) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 1001.0))[None]
    radii = [0.0, 0.1, 0.2, 0.25, 0.5, 0.6, 0.65]
    bounds = certify_scores(scores, SIGMA, radii, ALPHA, lipschitz)
    shift = lipschitz * np.array(radii)
    assert bounds.lower[:, 0] == pytest.approx(
        np.array([451, 299, 173, 124, 10, 1, -np.inf]) - shift, rel=1e-14
    )
    assert bounds.upper[:, 0] == pytest.approx(
        np.array([550, 702, 828, 877, 991, 1000, np.inf]) + shift, rel=1e-14
    )
    if lipschitz == 0.0:
        assert bounds.lower[3, 0] == 124.0  # exact: nothing is rounded where nothing is added


def test_bounds_are_rounded_outwards() -> None:
    scores = np.full((1, 1000), 0.1)
    bounds = certify_scores(scores, SIGMA, [0.0, 0.1], ALPHA, lipschitz=0.3)
    assert bounds.lower[0, 0] == bounds.upper[0, 0] == 0.1
    shift = Fraction(0.3) * Fraction(0.1)
    assert Fraction(float(bounds.lower[1, 0])) <= Fraction(0.1) - shift
    assert Fraction(float(bounds.upper[1, 0])) >= Fraction(0.1) + shift


@pytest.mark.parametrize("radius", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("percentile", [0.5, 0.8])
def test_coverage_with_atoms_by_exact_summation(radius: float, percentile: float) -> None:
    """A Bernoulli score: the samples whose bound is wrong have probability <= alpha together."""
    n, alpha = 60, 0.01
    bounds = certify_scores(every_count(n), SIGMA, [radius], alpha, percentile=percentile)
    p_low = ndtr(ndtri(percentile) - radius / SIGMA)
    p_high = ndtr(ndtri(percentile) + radius / SIGMA)
    nearby = [p_low - 1e-9, p_low + 1e-9, p_high - 1e-9, p_high + 1e-9]
    for zero_rate in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, *nearby):
        weight = binom.pmf(np.arange(n + 1), n, zero_rate)
        low_quantile, high_quantile = float(zero_rate < p_low), float(zero_rate < p_high)
        assert weight[bounds.lower[0] > low_quantile].sum() <= alpha
        assert weight[bounds.upper[0] < high_quantile].sum() <= alpha


def test_radius_fails_with_probability_alpha_at_most_by_exact_summation() -> None:
    n, alpha = 80, 0.01
    flags = certified_radius(every_count(n), 0.5, SIGMA, alpha, "anomalous")
    for zero_rate in (0.4, 0.25, 0.1, 0.02):
        true_radius = SIGMA * ndtri(1.0 - zero_rate)  # exact for a half-space
        weight = binom.pmf(np.arange(n + 1), n, zero_rate)
        assert weight[flags > true_radius].sum() <= alpha


def test_prediction_is_the_exact_binomial_test() -> None:
    n, alpha = 50, 0.01
    decisions = predict_scores(every_count(n), 0.5, alpha)
    for zeros in range(n + 1):
        sure = binomtest(zeros, n, 0.5).pvalue <= alpha
        assert decisions[zeros] == (-1 if not sure else int(zeros < n / 2))
    for percentile in (0.2, 0.5, 0.9):
        decisions = predict_scores(every_count(n), 0.5, alpha, percentile)
        for zero_rate in (percentile - 1e-9, percentile, 0.05, 0.95):
            flagged = int(zero_rate < percentile)  # h_p > 0.5
            weight = binom.pmf(np.arange(n + 1), n, zero_rate)
            assert weight[decisions == 1 - flagged].sum() <= alpha


def test_radius_is_cohens() -> None:
    scores = np.r_[np.zeros(100), np.ones(900)][None]
    expected = SIGMA * ndtri(clopper_pearson_lower(900, 1000, ALPHA))
    assert certified_radius(scores, 0.5, SIGMA, ALPHA, "anomalous")[0] == pytest.approx(expected, rel=1e-11)
    assert certified_radius(scores, 0.5, SIGMA, ALPHA, "normal")[0] == 0.0
    assert certified_radius(1.0 - scores, 0.5, SIGMA, ALPHA, "normal")[0] == pytest.approx(
        expected, rel=1e-11
    )
    everything = certified_radius(scores, -1.0, SIGMA, ALPHA, "anomalous")[0]
    assert everything == pytest.approx(max_radius(1000, SIGMA, ALPHA), rel=1e-11)
    assert everything <= max_radius(1000, SIGMA, ALPHA)


def test_a_score_at_the_threshold_is_normal() -> None:
    scores = np.full((1, 1000), 0.5)
    assert certified_radius(scores, 0.5, SIGMA, ALPHA, "anomalous")[0] == 0.0
    assert certified_radius(scores, 0.5, SIGMA, ALPHA, "normal")[0] > 0.6
    assert predict_scores(scores, 0.5, ALPHA)[0] == 0


@pytest.mark.parametrize("percentile", [0.5, 0.7])
@pytest.mark.parametrize("lipschitz", [0.0, 0.5])
@pytest.mark.parametrize("side", ["anomalous", "normal"])
def test_radius_and_bounds_are_dual(side, lipschitz: float, percentile: float) -> None:
    """lower(r) > threshold (upper(r) <= threshold) up to the radius and not beyond."""
    rng = np.random.default_rng(1)
    scores = np.round(rng.normal(size=(6, 300)), 1)  # with ties
    for threshold in np.unique(scores)[::4]:
        radius = certified_radius(scores, float(threshold), SIGMA, 0.01, side, lipschitz, percentile)
        for image in np.flatnonzero(radius > 1e-6):
            # RADIUS_SLACK makes the radius itself safe in floating point.
            near = [radius[image] * (1 - 1e-9), radius[image], radius[image] * (1 + 1e-9) + 1e-12]
            bounds = certify_scores(scores[image][None], SIGMA, near, 0.01, lipschitz, percentile)
            holds = bounds.lower > threshold if side == "anomalous" else bounds.upper <= threshold
            assert holds[:, 0].tolist() == [True, True, False]
        bounds = certify_scores(scores, SIGMA, [1e-9], 0.01, lipschitz, percentile)
        holds = bounds.lower[0] > threshold if side == "anomalous" else bounds.upper[0] <= threshold
        assert not holds[radius == 0.0].any()


def test_bounds_widen_with_the_radius_and_with_confidence() -> None:
    scores = np.random.default_rng(2).normal(size=(4, 500))
    radii = np.linspace(0.0, 0.6, 13)
    for lipschitz in (0.0, 1.0):
        bounds = certify_scores(scores, SIGMA, radii, 0.01, lipschitz)
        assert (np.diff(bounds.lower, axis=0) <= 0).all()
        assert (np.diff(bounds.upper, axis=0) >= 0).all()
        surer = certify_scores(scores, SIGMA, radii, 0.0001, lipschitz)
        assert (surer.lower <= bounds.lower).all()
        assert (surer.upper >= bounds.upper).all()


def test_nan_counts_against_us_on_both_sides() -> None:
    scores = np.random.default_rng(3).normal(size=(1, 1000))
    broken = scores.copy()
    broken[0, :40] = np.nan
    assert invalid_draws(broken).tolist() == [40]
    bounds = certify_scores(broken, SIGMA, [0.1], ALPHA)
    low, high = scores.copy(), scores.copy()
    low[0, :40], high[0, :40] = -np.inf, np.inf
    assert bounds.lower == certify_scores(low, SIGMA, [0.1], ALPHA).lower
    assert bounds.upper == certify_scores(high, SIGMA, [0.1], ALPHA).upper
    for side, replaced in (("anomalous", low), ("normal", high)):
        threshold = -0.9 if side == "anomalous" else 0.9
        expected = certified_radius(replaced, threshold, SIGMA, ALPHA, side)
        assert certified_radius(broken, threshold, SIGMA, ALPHA, side) == expected
    assert predict_scores(np.full((1, 1000), np.nan), 0.0, ALPHA)[0] == -1
    with pytest.raises(InputError, match="image 0 has NaN in 40 of 1000 draws"):
        percentile_scores(broken)


def test_percentile_scores_use_the_lower_inverse() -> None:
    scores = np.random.default_rng(4).permutation(np.arange(1.0, 101.0))[None]
    for percentile, expected in ((0.5, 50.0), (0.07, 7.0), (0.071, 8.0), (0.001, 1.0), (0.999, 100.0)):
        assert percentile_scores(scores, percentile)[0] == expected


def test_lipschitz_bounds_and_radius() -> None:
    lower, upper = np.array([1.0, 2.0]), np.array([1.25, 2.0])
    bounds = lipschitz_bounds(lower, upper, 2.0, [0.0, 0.5])
    assert np.array_equal(bounds.lower[0], lower)
    assert np.array_equal(bounds.upper[0], upper)
    assert (bounds.lower[1] <= lower - 1.0).all()
    assert bounds.lower[1] == pytest.approx(lower - 1.0, rel=1e-14)
    assert (bounds.upper[1] >= upper + 1.0).all()
    assert lipschitz_radius(lower, upper, 1.5, 2.0, "anomalous") == pytest.approx([0.0, 0.25])
    assert lipschitz_radius(lower, upper, 1.5, 2.0, "normal") == pytest.approx([0.125, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noisy_scores": np.zeros(5)}, "need \\(images, n\\)"),
        ({"sigma": 0.0}, "sigma"),
        ({"alpha": 0.5}, "strictly between 0 and 0.5"),
        ({"lipschitz": -1.0}, "at least 0"),
        ({"lipschitz": float("nan")}, "at least 0"),
        ({"radii": [-0.1]}, "radii"),
        ({"percentile": 1.0}, "percentile"),
    ],
)
def test_bad_arguments_are_refused(change, message: str) -> None:
    arguments = {"noisy_scores": np.zeros((2, 50)), "sigma": 0.25, "radii": [0.1], "alpha": 0.01}
    with pytest.raises(InputError, match=message):
        certify_scores(**(arguments | change))


def test_a_threshold_must_be_finite() -> None:
    with pytest.raises(InputError, match="calibrate"):
        certified_radius(np.zeros((2, 50)), float("nan"), SIGMA, ALPHA, "normal")
