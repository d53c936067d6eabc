from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom, binomtest, norm
from statsmodels.stats.proportion import proportion_confint

from certify.bounds import (
    all_infinite,
    alpha_per_image,
    clopper_pearson_lower,
    clopper_pearson_upper,
    hoeffding_lower,
    linf_reading,
    max_radius,
    min_samples,
    order_ranks,
    shifted_ranks,
)
from certify.checks import InputError

# (lower, upper) at the median, alpha 0.001, for r / sigma = 0, 0.5, 1, 1.5, 2, 3.
GOLDEN_RANKS = {
    100: [(35, 66), (17, 84), (6, 95), (1, 100), (0, 101), (0, 101)],
    1000: [(451, 550), (264, 737), (124, 877), (44, 957), (10, 991), (0, 1001)],
    10000: [(4845, 5156), (2943, 7058), (1475, 8526), (592, 9409), (183, 9818), (4, 9997)],
    100000: [(49511, 50490), (30403, 69598), (15509, 84492), (6438, 93563), (2131, 97870), (101, 99900)],
}


@cache
def exact_cdf(n: int, quantile: float) -> list[Fraction]:
    """P(Bin(n, quantile) <= k) for k = 0..n in rational arithmetic, an oracle apart from scipy."""
    p = Fraction(quantile)
    pmf = [Fraction(0)] * (n + 1)
    pmf[0] = Fraction(1)
    for trial in range(n):
        for k in range(trial + 1, 0, -1):
            pmf[k] = pmf[k] * (1 - p) + pmf[k - 1] * p
        pmf[0] *= 1 - p
    total, cdf = Fraction(0), []
    for mass in pmf:
        total += mass
        cdf.append(total)
    return cdf


@pytest.mark.parametrize("n", GOLDEN_RANKS)
def test_golden_ranks(n: int) -> None:
    shifts = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
    assert [shifted_ranks(n, 0.5, shift, 0.001) for shift in shifts] == GOLDEN_RANKS[n]
    assert [
        (order_ranks(n, float(ndtr(-s)), 0.001)[0], order_ranks(n, float(ndtr(s)), 0.001)[1]) for s in shifts
    ] == GOLDEN_RANKS[n]


def test_golden_ranks_at_sigma_a_quarter() -> None:
    expected = {0.0: (451, 550), 0.1: (299, 702), 0.2: (173, 828), 0.25: (124, 877), 0.5: (10, 991)}
    expected |= {0.6: (1, 1000), 0.65: (0, 1001)}
    assert {r: shifted_ranks(1000, 0.5, r / 0.25, 0.001) for r in expected} == expected


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
@pytest.mark.parametrize("n", [1, 2, 5, 10, 29, 60, 120])
def test_ranks_are_exact_and_sharp(n: int, alpha: float) -> None:
    """Summed exactly: the ranks miss with probability <= alpha, the next ranks inwards do not."""
    for quantile in (0.015625, 0.125, 0.25, 0.5, 0.625, 0.75, 0.9375, 0.984375):
        cdf = exact_cdf(n, quantile)
        lower, upper = order_ranks(n, quantile, alpha)
        # A continuous score puts z_(k) above its quantile exactly if fewer than k draws lie at or below it.
        misses_below = [Fraction(0), *cdf]  # [k] = P(Bin <= k - 1)
        misses_above = [1 - miss for miss in misses_below]  # [k] = P(Bin >= k)
        assert misses_below[lower] <= alpha
        if lower < n:
            assert misses_below[lower + 1] > alpha
        if upper <= n:
            assert misses_above[upper] <= alpha
        if upper > 1:
            assert misses_above[upper - 1] > alpha


def test_a_level_within_rounding_is_left_unused() -> None:
    """P(Bin(5, 1/2) <= 0) = 1/32: the smallest of five draws bounds the median there, but rounded tails cannot tell."""
    assert order_ranks(5, 0.5, 1 / 32 * (1 + 2e-12)) == (1, 5)
    assert order_ranks(5, 0.5, 1 / 32) == (0, 6)
    assert min_samples(0.0, 1.0, 1 / 32) == 6


@pytest.mark.parametrize("n", [5, 29, 60])
@pytest.mark.parametrize("quantile", [0.125, 0.3, 0.5, 0.9])
def test_a_tail_an_ulp_above_the_level_is_never_used(n: int, quantile: float) -> None:
    """scipy rounds some of these tails down to the level; the exact sums are above it."""
    for rank, tail in enumerate(exact_cdf(n, quantile)[:-1], start=1):
        level = float(tail)
        while Fraction(level) >= tail:
            level = float(np.nextafter(level, 0.0))
        assert order_ranks(n, quantile, level)[0] < rank


def test_ranks_at_the_ends_of_the_unit_interval() -> None:
    assert order_ranks(50, 0.0, 0.01) == (0, 1)
    assert order_ranks(50, 1.0, 0.01) == (50, 51)


def test_clopper_pearson_equals_statsmodels_and_scipy() -> None:
    for n in (1, 7, 100, 1000):
        for k in sorted({0, 1, n // 3, n // 2, n - 1, n}):
            for alpha in (0.05, 0.001):
                low, high = proportion_confint(k, n, alpha=2 * alpha, method="beta")
                assert clopper_pearson_lower(k, n, alpha) == pytest.approx(low, rel=1e-12)
                assert clopper_pearson_upper(k, n, alpha) == pytest.approx(high, rel=1e-12)
    interval = binomtest(700, 1000, alternative="greater").proportion_ci(0.999, "exact")
    assert clopper_pearson_lower(700, 1000, 0.001) == pytest.approx(interval.low, rel=1e-9)


def test_clopper_pearson_goldens() -> None:
    golden = {50490: 0.500008949, 90000: 0.8970364962, 99000: 0.9889893404, 99999: 0.9999076697}
    golden[100000] = 0.9999309248
    for count, bound in golden.items():
        assert clopper_pearson_lower(count, 100000, 0.001) == pytest.approx(bound, abs=5e-11 + 1e-9)
    assert clopper_pearson_lower(50489, 100000, 0.001) <= 0.5 < clopper_pearson_lower(50490, 100000, 0.001)
    last = clopper_pearson_lower(np.arange(99995, 100001), 100000, 0.001)
    assert [f"{0.25 * norm.ppf(p):.3f}" for p in last] == [
        "0.898",
        "0.905",
        "0.913",
        "0.922",
        "0.935",
        "0.953",
    ]


def test_clopper_pearson_covers_exactly() -> None:
    n, alpha = 40, 0.01
    lower = clopper_pearson_lower(np.arange(n + 1), n, alpha)
    upper = clopper_pearson_upper(np.arange(n + 1), n, alpha)
    assert np.allclose(lower, 1.0 - upper[::-1], rtol=0, atol=1e-14)
    for rate in (0.03125, 0.25, 0.5, 0.875):
        cdf = exact_cdf(n, rate)
        pmf = [cdf[0], *(b - a for a, b in pairwise(cdf))]
        assert sum(mass for mass, bound in zip(pmf, lower, strict=True) if bound > rate) <= alpha
        assert sum(mass for mass, bound in zip(pmf, upper, strict=True) if bound < rate) <= alpha


@pytest.mark.parametrize("successes", [-1, 11])
def test_counts_outside_the_trials_are_refused(successes: int) -> None:
    with pytest.raises(InputError, match="need 0 <= successes <= trials"):
        clopper_pearson_lower(successes, 10, 0.01)


def test_max_radius_goldens() -> None:
    golden = {100: 1.5005, 1000: 2.4633, 10000: 3.1986, 100000: 3.8115, 1000000: 4.3468}
    assert {n: round(max_radius(n, 1.0, 0.001), 4) for n in golden} == golden
    assert round(max_radius(100000, 1.0, 0.01), 4) == 3.9105
    assert max_radius(1000, 0.25, 0.001) == pytest.approx(0.25 * max_radius(1000, 1.0, 0.001))
    assert max_radius(1, 1.0, 0.001) == 0.0


def test_min_samples_goldens() -> None:
    golden = {0.5: 19, 1.0: 40, 1.5: 100, 2.0: 301, 2.5: 1109, 3.0: 5114, 3.5: 29691, 4.0: 218105}
    assert {ratio: min_samples(ratio, 1.0, 0.001) for ratio in golden} == golden
    assert {ratio: min_samples(ratio * 0.25, 0.25, 0.001) for ratio in golden} == golden
    for ratio in (
        9.0,
        36.0,
        100.0,
    ):  # beyond 2^53 draws there is no exact count, and no end to the search for it
        with pytest.raises(InputError, match="raise sigma"):
            min_samples(ratio, 1.0, 0.001)


def test_min_samples_is_the_fewest_that_leave_a_finite_bound() -> None:
    for radius in (0.0, 0.1, 0.4, 0.7):
        fewest = min_samples(radius, 0.25, 0.001)
        assert not all_infinite(radius, 0.25, fewest, 0.001)
        assert all_infinite(radius, 0.25, fewest - 1, 0.001)
        assert max_radius(fewest, 0.25, 0.001) >= radius


def test_all_infinite_needs_both_sides_at_another_percentile() -> None:
    assert shifted_ranks(300, 0.9, 2.0, 0.001)[1] == 301
    assert not all_infinite(0.5, 0.25, 300, 0.001, percentile=0.9)


def test_alpha_is_split_over_images_and_cells() -> None:
    assert alpha_per_image(0.001, 200) == pytest.approx(5e-6)
    assert alpha_per_image(0.001, 200, cells=5) == pytest.approx(1e-6)
    with pytest.raises(InputError, match="at least 1"):
        alpha_per_image(0.001, 0)


@pytest.mark.parametrize("pixels", [1, 64, 256, 3 * 224 * 224])
def test_the_linf_reading_is_the_largest_cube_in_the_ball(pixels) -> None:
    for radius in (0.0, 8 / 255, 0.25, 3.0):
        side = linf_reading(radius, pixels)
        assert (
            Fraction(side) ** 2 * pixels <= Fraction(radius) ** 2
        )  # in exact arithmetic: a corner stays inside
        assert side == pytest.approx(radius / pixels**0.5, rel=1e-15)


@pytest.mark.parametrize(("radius", "pixels"), [(-0.1, 4), (float("nan"), 4), (float("inf"), 4), (0.1, 0)])
def test_the_linf_reading_refuses(radius, pixels) -> None:
    with pytest.raises(InputError, match="radius and pixels"):
        linf_reading(radius, pixels)


@pytest.mark.parametrize("n", [1, 10, 60])
def test_hoeffdings_lower_bound_holds_for_every_count(n: int) -> None:
    """Exact for coins; at most the Clopper-Pearson bound, which knows that the values are 0 and 1."""
    alpha, counts = 0.05, np.arange(n + 1)
    lower = np.array([hoeffding_lower(count / n, n, alpha) for count in counts])
    assert (lower <= clopper_pearson_lower(counts, n, alpha) + 1e-15).all()
    assert (lower >= counts / n - np.sqrt(-np.log(alpha) / (2 * n)) - 1e-15).all()
    assert (lower[0], lower[-1]) == (0.0, pytest.approx(alpha ** (1 / n), rel=1e-14))
    assert (np.diff(lower) > 0).all()
    for rate in (0.05, 0.5, 0.9, 0.99):
        assert binom.pmf(counts, n, rate)[lower > rate].sum() <= alpha


def test_hoeffdings_lower_bound_refuses() -> None:
    for mean, n, alpha in ((1.1, 5, 0.1), (float("nan"), 5, 0.1), (0.5, 0, 0.1), (0.5, 5, 0.0)):
        with pytest.raises(InputError, match="need"):
            hoeffding_lower(mean, n, alpha)
