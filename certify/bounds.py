"""Exact binomial bounds: Clopper-Pearson, ranks of order statistics, and what a number of draws can certify.

All levels `alpha` are one-sided and all numbers float64. Sources: Clopper and Pearson (Biometrika 1934);
Cohen, Rosenfeld and Kolter (ICML 2019) for the radius; Chiang et al. (NeurIPS 2020) for the percentile bound
that the ranks serve.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, overload

import numpy as np
from scipy.special import log_ndtr, ndtr, ndtri, rel_entr
from scipy.stats import beta, binom, norm

from certify.checks import InputError, check_positive, check_probability
from certify.types import FloatArray

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.integer[Any]]]
Count: TypeAlias = int | np.int64

# Above the relative error of scipy's binomial tails: at most 4e-13 for n to 100,000, against sums in 40 digits.
CDF_ERROR = 1e-12


@overload
def clopper_pearson_lower(successes: Count, trials: int, alpha: float) -> float: ...
@overload
def clopper_pearson_lower(successes: IntArray, trials: int, alpha: float) -> FloatArray: ...
def clopper_pearson_lower(successes: Count | IntArray, trials: int, alpha: float) -> float | FloatArray:
    """Return the exact one-sided lower confidence bound of a success rate.

    The bound exceeds the true rate with probability at most `alpha`, in (0, 1). It is 0 without a success and
    alpha^(1/trials) without a failure. `successes` may be an integer array; it is refused outside [0,
    trials]. Equals `proportion_confint(successes, trials, alpha=2 * alpha, method="beta")[0]` of statsmodels,
    whose alpha is two-sided.
    """
    counts = _check_counts(successes, trials)
    check_probability(alpha, "alpha")
    bound = np.zeros(counts.shape)
    some = counts > 0
    bound[some] = beta.ppf(alpha, counts[some], trials - counts[some] + 1.0)
    bound[counts == trials] = math.exp(math.log(alpha) / trials)
    return float(bound) if bound.ndim == 0 else bound


@overload
def clopper_pearson_upper(successes: Count, trials: int, alpha: float) -> float: ...
@overload
def clopper_pearson_upper(successes: IntArray, trials: int, alpha: float) -> FloatArray: ...
def clopper_pearson_upper(successes: Count | IntArray, trials: int, alpha: float) -> float | FloatArray:
    """Return the exact one-sided upper confidence bound of a success rate; the mirror of `clopper_pearson_lower`.

    It is 1 without a failure and 1 - alpha^(1/trials), in the form that keeps its digits, without a success.
    """
    counts = _check_counts(successes, trials)
    check_probability(alpha, "alpha")
    bound = np.ones(counts.shape)
    some = counts < trials
    bound[some] = beta.isf(alpha, counts[some] + 1.0, trials - counts[some])
    bound[counts == 0] = -math.expm1(math.log(alpha) / trials)
    return float(bound) if bound.ndim == 0 else bound


def hoeffding_lower(mean: float, n: int, alpha: float) -> float:
    """Return the lower confidence bound of an expectation whose estimate `mean` averages values in [0, 1].

    It is min{mu <= mean : n KL(mean || mu) <= ln(1 / alpha)}, Hoeffding's inequality in the form (2.1) of his
    paper (JASA 1963), never below mean - sqrt(ln(1 / alpha) / (2 n)) and far above it near 1. It exceeds the
    expectation with probability at most `alpha`, in (0, 1), for the mean of `n` independent values and, by
    section 5 there, for a two-sample U-statistic with a kernel in [0, 1] and a smaller sample of size `n`.
    """
    _check_n(n)
    check_probability(alpha, "alpha")
    if not 0.0 <= mean <= 1.0:
        raise InputError(f"mean: got {mean}, need a value in [0, 1]")
    low, high, allowed = 0.0, mean, -math.log(alpha) / n
    while low < (middle := (low + high) / 2) < high:
        if rel_entr(mean, middle) + rel_entr(1.0 - mean, 1.0 - middle) > allowed:
            low = middle
        else:
            high = middle
    return low


def order_ranks(n: int, quantile: float, alpha: float) -> tuple[int, int]:
    """Return the ranks (1-based) of the sorted draws that bound a quantile from below and from above.

    With draws z_(1) <= ... <= z_(n) and h = inf{t : F(t) >= quantile}, each of z_(lower) <= h and h <=
    z_(upper) holds with probability at least 1 - alpha, for every distribution, atoms included: lower = max{k
    : P(Bin(n, quantile) <= k - 1) <= alpha}, upper = min{k : P(Bin(n, quantile) >= k) <= alpha}. 0 and n + 1
    stand for "none", a bound at -inf and +inf. `quantile` in [0, 1], `alpha` in (0, 1). Tails within 1e-12 of
    alpha, relative, count as above it.
    """
    _check_n(n)
    check_probability(alpha, "alpha")
    if not 0.0 <= quantile <= 1.0:
        raise InputError(f"quantile: got {quantile}, need a value in [0, 1]")
    return _lower_rank(n, quantile, alpha), n + 1 - _lower_rank(n, 1.0 - quantile, alpha)


def shifted_ranks(n: int, percentile: float, shift: float, alpha: float) -> tuple[int, int]:
    """Return the ranks that bound a smoothed percentile under a shift of r / sigma noise deviations.

    The lower rank is that of the quantile Phi(Phi^-1(percentile) - shift), the upper one that of
    Phi(Phi^-1(percentile) + shift) (Chiang et al. 2020), the latter through its complement, which keeps its
    digits near 1.
    """
    if shift == 0.0:
        return order_ranks(n, percentile, alpha)
    centre = float(ndtri(percentile))
    lower = _lower_rank(n, float(ndtr(centre - shift)), alpha)
    return lower, n + 1 - _lower_rank(n, float(ndtr(-centre - shift)), alpha)


def max_radius(n: int, sigma: float, alpha: float) -> float:
    """Return the largest radius that `n` draws can certify at the median: sigma * Phi^-1(alpha^(1/n)), or 0.

    In the units of `sigma`. Every certified radius is at most this one, whatever the score.
    """
    _check_n(n)
    check_positive(sigma, "sigma")
    check_probability(alpha, "alpha")
    return max(0.0, sigma * float(norm.isf(-math.expm1(math.log(alpha) / n))))


def min_samples(radius: float, sigma: float, alpha: float) -> int:
    """Return the fewest draws that can certify `radius` at the median.

    It is ceil(ln alpha / ln Phi(radius / sigma)).
    """
    check_positive(sigma, "sigma")
    check_probability(alpha, "alpha")
    if not (math.isfinite(radius) and radius >= 0.0):
        raise InputError(f"radius: got {radius}, need a finite value of at least 0")
    log_rate, allowed = float(log_ndtr(radius / sigma)), math.log(alpha) - CDF_ERROR
    # Beyond 2^53 the count has no unit digit left, and the two loops below would not end.
    if log_rate == 0.0 or allowed / log_rate > 2**53:
        raise InputError(
            f"radius: {radius} is {radius / sigma:.3g} sigma, beyond any number of draws; raise sigma"
        )
    samples = math.ceil(allowed / log_rate)
    # The quotient of two rounded logarithms may miss an integer by an ulp; a tie is no rank (`order_ranks`).
    while samples > 1 and (samples - 1) * log_rate <= allowed:
        samples -= 1
    while samples * log_rate > allowed:
        samples += 1
    return samples


def all_infinite(radius: float, sigma: float, n: int, alpha: float, percentile: float = 0.5) -> bool:
    """Tell, before any forward pass, whether `n` draws leave every bound at `radius` infinite."""
    check_positive(sigma, "sigma")
    check_probability(percentile, "percentile")
    return shifted_ranks(n, percentile, radius / sigma, alpha) == (0, n + 1)


def alpha_per_image(alpha: float, images: int, cells: int = 1) -> float:
    """Split the total level of a table over its bounds (union bound).

    A cell (one radius, one side) uses one one-sided bound an image, so `alpha` holds for the cell as a whole
    if each bound takes alpha / images. With `cells` cells claimed jointly it is alpha / (images * cells).
    """
    check_probability(alpha, "alpha")
    if images < 1 or cells < 1:
        raise InputError(f"images and cells: got {images} and {cells}, need at least 1 of each")
    return alpha / (images * cells)


def linf_reading(radius: float, pixels: int) -> float:
    """Return r / sqrt(d), rounded down: the radius of the largest Linf ball inside an L2 ball of `radius`.

    `pixels` is d, the values of one image (channels included). Whatever holds in the L2 ball holds there too;
    a certificate made for Linf may reach further.
    """
    if pixels < 1 or not (math.isfinite(radius) and radius >= 0.0):
        raise InputError(f"radius and pixels: got {radius} and {pixels}, need at least 0 and at least 1")
    return max(0.0, math.nextafter(radius / math.sqrt(pixels), -math.inf))


def _lower_rank(n: int, quantile: float, alpha: float) -> int:
    """Return max{k in 1..n : P(Bin(n, quantile) <= k - 1) <= alpha}, or 0 if there is none."""
    alpha /= 1.0 + CDF_ERROR
    rank = int(np.clip(np.nan_to_num(binom.ppf(alpha, n, quantile)), 0, n))
    # scipy's ppf may be one off where the distribution function comes within rounding of alpha.
    while rank < n and binom.cdf(rank, n, quantile) <= alpha:
        rank += 1
    while rank > 0 and binom.cdf(rank - 1, n, quantile) > alpha:
        rank -= 1
    return rank


def _check_n(n: int) -> None:
    if n < 1:
        raise InputError(f"n: got {n}, need at least one draw")


def _check_counts(successes: Count | IntArray, trials: int) -> FloatArray:
    counts = np.asarray(successes)
    if not np.issubdtype(counts.dtype, np.integer):
        raise InputError(f"successes: got {counts.dtype}, need integer counts")
    if trials < 1 or (counts < 0).any() or (counts > trials).any():
        raise InputError(
            f"successes: got {successes} of {trials} trials, need 0 <= successes <= trials, trials >= 1"
        )
    return counts.astype(np.float64)
