from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import beta, binom

from certify.bands import band_bounds, band_width, mean_bounds
from certify.certificate import certify_scores
from certify.checks import InputError

SIGMA, ALPHA = 0.25, 0.001
RADII = np.linspace(0.0, 0.7, 15)


def every_count(n: int) -> np.ndarray:
    """All samples of a Bernoulli score up to order: row c holds c zeros and n - c ones."""
    return (np.arange(n)[None] >= np.arange(n + 1)[:, None]).astype(np.float64)


def test_band_width_is_massarts() -> None:
    assert band_width(10_000, 0.001) == pytest.approx(np.sqrt(np.log(1000) / 20_000), rel=1e-15)


@pytest.mark.parametrize("n", [50, 1000, 10_000])
@pytest.mark.parametrize("percentile", [0.5, 0.9])
def test_ranks_are_the_best_that_the_band_allows(n: int, percentile: float) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1.0))[None]  # a draw is its rank
    bounds, eps = (
        band_bounds(scores, SIGMA, RADII, ALPHA, percentile=percentile),
        Fraction(band_width(n, ALPHA)),
    )
    for row, radius in enumerate(RADII):
        low = Fraction(float(ndtr(ndtri(percentile) - radius / SIGMA)))
        high = Fraction(float(ndtr(ndtri(percentile) + radius / SIGMA)))
        if (k := bounds.lower[row, 0]) > -np.inf:
            assert Fraction(int(k) - 1, n) + eps < low
            assert Fraction(int(k), n) + eps >= low
        else:
            assert eps >= low
        if (k := bounds.upper[row, 0]) < np.inf:
            assert Fraction(int(k), n) - eps >= high
            assert Fraction(int(k) - 1, n) - eps < high
        else:
            assert 1 - eps < high


def test_finite_up_to_the_band_and_within_the_exact_ranks() -> None:
    scores = np.arange(10_000.0)[None]
    bounds = band_bounds(scores, 1.0, [2.07, 2.09], ALPHA)
    assert (
        np.isfinite(bounds.lower[:, 0]).tolist() == np.isfinite(bounds.upper[:, 0]).tolist() == [True, False]
    )
    radii = np.linspace(0.0, 2.0, 9)
    band, exact = band_bounds(scores, 1.0, radii, ALPHA), certify_scores(scores, 1.0, radii, ALPHA)
    assert (band.lower <= exact.lower).all()
    assert (band.upper >= exact.upper).all()


def test_all_radii_hold_at_once_by_exact_summation() -> None:
    """A Bernoulli score: samples with one wrong end at any radius have probability <= alpha together."""
    n, alpha = 60, 0.01
    bounds = band_bounds(every_count(n), SIGMA, RADII, alpha)
    levels_low, levels_high = ndtr(-RADII / SIGMA), ndtr(RADII / SIGMA)
    for zero_rate in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, *(levels_low + 1e-9), *(levels_high - 1e-9)):
        weight = binom.pmf(np.arange(n + 1), n, zero_rate)
        wrong_low = bounds.lower > (zero_rate < levels_low)[:, None]
        wrong_high = bounds.upper < (zero_rate < levels_high)[:, None]
        assert weight[wrong_low.any(axis=0)].sum() <= alpha
        assert weight[wrong_high.any(axis=0)].sum() <= alpha


def test_all_radii_hold_at_once_where_separate_ranks_do_not() -> None:
    """Uniform scores, 101 radii: the band keeps its level, exact ranks at alpha each would fail jointly."""
    radii = SIGMA * np.linspace(0.0, 1.5, 101)
    draws, true = np.random.default_rng(0).random((4000, 200)), ndtr(-radii / SIGMA)[:, None]
    joint = (band_bounds(draws, SIGMA, radii, 0.1).lower > true).any(axis=0).mean()
    separate = (certify_scores(draws, SIGMA, radii, 0.1).lower > true).any(axis=0).mean()
    assert 0.02 < joint <= 0.1
    assert separate > 0.15


@pytest.mark.parametrize("bound", [band_bounds, lambda *args: mean_bounds(*args, minimum=-9.0, maximum=9.0)])
def test_nan_counts_against_us_on_both_sides(bound) -> None:
    scores = np.random.default_rng(3).normal(size=(1, 1000))
    low, high = scores.copy(), scores.copy()
    scores[0, :40], low[0, :40], high[0, :40] = np.nan, -np.inf, np.inf
    bounds = bound(scores, SIGMA, [0.1], ALPHA)
    assert bounds.lower == bound(low, SIGMA, [0.1], ALPHA).lower
    assert bounds.upper == bound(high, SIGMA, [0.1], ALPHA).upper


def test_the_mean_bound_is_kumars_sum() -> None:
    rng = np.random.default_rng(1)
    z, a, b = np.sort(rng.normal(size=40)), -1.5, 2.0
    bounds = mean_bounds(rng.permutation(z)[None], SIGMA, [0.2], 0.05, minimum=a, maximum=b)
    clipped, eps, c = [a, *np.clip(z, a, b), b], band_width(40, 0.05), 0.2 / SIGMA
    low = a + sum(
        (clipped[i] - clipped[i - 1]) * ndtr(ndtri((40 - i + 1) / 40 - eps) - c)
        for i in range(1, 41)
        if (40 - i + 1) / 40 > eps
    )
    high = b - sum(
        (clipped[i + 1] - clipped[i]) * ndtr(ndtri(i / 40 - eps) - c) for i in range(41) if i / 40 > eps
    )
    assert (bounds.lower[0, 0], bounds.upper[0, 0]) == pytest.approx((low, high), abs=1e-11)
    assert bounds.lower[0, 0] < low
    assert bounds.upper[0, 0] > high


def test_golden_means_dominate_the_bound_from_the_mean_alone() -> None:
    n = 10_000
    draws = beta.ppf((np.arange(n) + 0.5) / n, 8, 2)[None]
    radii = np.array([0.5, 1.0, 2.0])
    ours = mean_bounds(draws, 1.0, radii, ALPHA, minimum=0.0, maximum=1.0).lower[:, 0]
    salman = ndtr(ndtri(draws.mean() - band_width(n, ALPHA)) - radii)
    assert ours == pytest.approx([0.699, 0.592, 0.319], abs=0.002)
    assert salman == pytest.approx([0.609, 0.412, 0.111], abs=0.001)
    for shape in ((8, 2), (0.2, 0.2), (2, 8), (1, 1)):
        draws = beta.ppf((np.arange(n) + 0.5) / n, *shape)[None]
        ours = mean_bounds(draws, 1.0, radii, ALPHA, minimum=0.0, maximum=1.0).lower[:, 0]
        assert (ours >= ndtr(ndtri(draws.mean() - band_width(n, ALPHA)) - radii)).all()


def test_a_monotone_score_of_a_linear_one_is_certified_exactly_up_to_the_band() -> None:
    """A = Phi(w.x / |w|): the attacked mean is Phi((m - r) / sqrt(1 + sigma^2)), and the bound tends to it."""
    mean, gap, radii = 0.5, [], RADII[:6]  # up to one sigma: beyond, the band itself dominates
    for n in (2000, 200_000):
        draws = ndtr(mean + SIGMA * ndtri((np.arange(n) + 0.5) / n))[None]
        bounds = mean_bounds(draws, SIGMA, radii, ALPHA, minimum=0.0, maximum=1.0)
        worst, best = (ndtr((mean + sign * radii) / np.sqrt(1 + SIGMA**2)) for sign in (-1, 1))
        assert (bounds.lower[:, 0] <= worst).all()
        assert (bounds.upper[:, 0] >= best).all()
        gap.append(max((worst - bounds.lower[:, 0]).max(), (bounds.upper[:, 0] - best).max()))
    assert gap[1] < 0.2 * gap[0] < 0.05


def test_the_mean_of_the_tight_construction_needs_its_lipschitz_term() -> None:
    height, radius, n = 5.0, 0.4, 200_000
    draws = (height - SIGMA * ndtri((np.arange(n) + 0.5) / n))[None]
    limits = {"minimum": 3.6, "maximum": 6.4}
    attacked = height - 2 * radius
    split = mean_bounds(draws, SIGMA, [radius], ALPHA, lipschitz=1.0, **limits).lower[0, 0]
    assert attacked - 0.15 < split <= attacked
    assert mean_bounds(draws, SIGMA, [radius], ALPHA, **limits).lower[0, 0] > attacked


def test_means_hold_at_all_radii_by_exact_summation() -> None:
    n, alpha = 60, 0.01
    bounds = mean_bounds(every_count(n), SIGMA, RADII, alpha, minimum=0.0, maximum=1.0)
    for rate in (0.02, 0.1, 0.5, 0.9, 0.98):  # of ones; the half-space attains both ends
        weight = binom.pmf(n - np.arange(n + 1), n, rate)
        worst, best = (ndtr(ndtri(rate) + sign * RADII / SIGMA)[:, None] for sign in (-1, 1))
        assert weight[(bounds.lower > worst).any(axis=0)].sum() <= alpha
        assert weight[(bounds.upper < best).any(axis=0)].sum() <= alpha


def test_means_stay_within_the_clipped_range_at_any_radius() -> None:
    scores = np.random.default_rng(5).normal(size=(3, 50))
    bounds = mean_bounds(scores, SIGMA, [0.0, 1.0, 100.0], 0.01, minimum=-1.0, maximum=1.0, lipschitz=1.0)
    assert (bounds.lower[-1] == -1.0).all()
    assert (bounds.upper[-1] == 1.0).all()
    assert (np.diff(bounds.lower, axis=0) <= 0).all()
    assert (np.diff(bounds.upper, axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noisy_scores": np.zeros(5)}, "need \\(images, n\\)"),
        ({"alpha": 0.5}, "strictly between 0 and 0.5"),
        ({"sigma": -1.0}, "sigma"),
        ({"lipschitz": -1.0}, "at least 0"),
        ({"minimum": 1.0}, "in this order"),
        ({"maximum": np.inf}, "in this order"),
    ],
)
def test_bad_arguments_are_refused(change, message: str) -> None:
    arguments = {"noisy_scores": np.zeros((2, 50)), "sigma": 0.25, "radii": [0.1], "alpha": 0.01}
    with pytest.raises(InputError, match=message):
        mean_bounds(**({"minimum": 0.0, "maximum": 1.0} | arguments | change))
    if not change.keys() & {"minimum", "maximum"}:
        with pytest.raises(InputError, match=message):
            band_bounds(**(arguments | change))
