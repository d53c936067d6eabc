"""Bounds that hold for all radii jointly, from one uniform confidence band of the noisy scores.

With eps = sqrt(ln(1 / alpha) / (2 n)) the empirical distribution function F_n of n draws exceeds the true F
nowhere by more than eps, with probability at least 1 - alpha, and as much in the other direction (the
inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, Annals of Probability 1990; one-sided,
for alpha <= 1/2, any distribution). Everything read off the band holds at once: all radii, thresholds and
percentiles. `certify_scores` is tighter where the radii are few and known beforehand.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from certify.certificate import check_level, check_lipschitz, sorted_draws, widen
from certify.checks import InputError, check_positive, check_probability, check_radii
from certify.types import FloatArray, ScoreBounds

# Ranks and means give this fraction away: more than the rounding error of n * (level - eps) and of the sums.
ROUNDING = 1e-12


def band_width(n: int, alpha: float) -> float:
    """Return eps of the one-sided band of `n` draws at level `alpha`, in (0, 0.5)."""
    check_level(alpha)
    if n < 1:
        raise InputError(f"n: got {n}, need at least one draw")
    return math.sqrt(-math.log(alpha) / (2 * n))


def band_bounds(
    noisy_scores: Any,
    sigma: float,
    radii: Any,
    alpha: float,
    lipschitz: float = 0.0,
    percentile: float = 0.5,
) -> ScoreBounds:
    """Bound the percentile-smoothed score for all radii jointly; arguments and result as in `certify_scores`.

    All lower ends of an image hold together with probability at least 1 - alpha, and so do all upper ends,
    over every radius and percentile, not only those asked for. The lower rank for q = p_l(r) is the largest k
    with (k - 1) / n + eps < q, since below z_(k) the true F is at most (k - 1) / n + eps < q; the upper rank
    for q = p_u(r) is the smallest k with k / n - eps >= q. Finite only for Phi(Phi^-1(p) - r / sigma) > eps.
    """
    for_lower, for_upper = sorted_draws(noisy_scores)
    check_positive(sigma, "sigma")
    check_lipschitz(lipschitz)
    check_probability(percentile, "percentile")
    radii = check_radii(np.atleast_1d(np.asarray(radii, dtype=np.float64)))
    images, n = for_lower.shape
    eps, centre = band_width(n, alpha), float(ndtri(percentile))
    lower, upper = np.full((len(radii), images), -np.inf), np.full((len(radii), images), np.inf)
    for row, shift in enumerate(radii / sigma):
        below = math.ceil(n * (float(ndtr(centre - shift)) - eps) - n * ROUNDING)
        if below >= 1:
            lower[row] = for_lower[:, below - 1]
        above = math.floor(n * (float(ndtr(-centre - shift)) - eps) - n * ROUNDING)
        if above >= 0:
            upper[row] = for_upper[:, n - above - 1]
    return widen(lower, upper, lipschitz, radii)


def mean_bounds(
    noisy_scores: Any,
    sigma: float,
    radii: Any,
    alpha: float,
    *,
    minimum: float,
    maximum: float,
    lipschitz: float = 0.0,
) -> ScoreBounds:
    """Bound the mean-smoothed score E clip(A(x + noise), minimum, maximum) for all radii jointly.

    The mean is minimum plus the area under P(A > t), and each such probability falls under a shift of r to
    Phi(Phi^-1(.) - r / sigma) at the least (Kumar et al., NeurIPS 2020). With the band below it, sorted draws
    z_(1..n) and z_(0) = minimum the lower end is

        minimum + sum_i (z_(i) - z_(i-1)) Phi(Phi^-1((n - i + 1) / n - eps) - r / sigma) - L r,

    the upper one its mirror image. Never infinite, hence of use beyond the radii that percentiles reach, and
    never below the bound of Salman et al. (2019) from the mean alone at the same eps. Unlike percentiles it
    changes with the scale of the score.

    Args:
        noisy_scores: as `sigma`, `radii`, `alpha` and `lipschitz` in `certify_scores`. A NaN counts as
            `minimum` in lower ends and as `maximum` in upper ends.
        minimum: where scores are clipped from below; part of the smoothed score, chosen before looking.
        maximum: where they are clipped from above.

    Returns:
        Bounds of shape (radii, images) within [minimum, maximum], rounded outwards.
    """
    for_lower, for_upper = sorted_draws(noisy_scores)
    check_positive(sigma, "sigma")
    check_lipschitz(lipschitz)
    if not (math.isfinite(minimum) and math.isfinite(maximum) and minimum < maximum):
        raise InputError(f"minimum and maximum: got {minimum} and {maximum}, need finite ones in this order")
    radii = check_radii(np.atleast_1d(np.asarray(radii, dtype=np.float64)))
    levels = _attacked_levels(for_lower.shape[1], sigma, radii, alpha)
    low, high = (np.clip(draws, minimum, maximum) for draws in (for_lower, for_upper))
    rises = np.diff(low, axis=1, prepend=minimum)
    falls = -np.diff(high[:, ::-1], axis=1, prepend=maximum)
    slack = ROUNDING * max(abs(minimum), abs(maximum), maximum - minimum)
    lower, upper = minimum + levels @ rises.T - slack, maximum - levels @ falls.T + slack
    bounds = widen(lower, upper, lipschitz, radii)
    return ScoreBounds(np.clip(bounds.lower, minimum, maximum), np.clip(bounds.upper, minimum, maximum))


def _attacked_levels(n: int, sigma: float, radii: FloatArray, alpha: float) -> FloatArray:
    """Least attacked probability of an event that n, n - 1, ..., 1 of n draws fulfil: (radii, n)."""
    shares = np.maximum(np.arange(n, 0, -1) / n - band_width(n, alpha), 0.0)
    return np.asarray(ndtr(ndtri(shares)[None] - (radii / sigma)[:, None]), dtype=np.float64)
