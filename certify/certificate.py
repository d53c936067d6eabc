"""Noisy scores to bounds, radii and decisions: what holds for every image in an L2 ball.

Everything here is post-processing of scores drawn once. The certified object is the *percentile of the noisy
score*, h_p(x) = inf{t : P(A(x + noise) <= t) >= p} with noise ~ N(0, sigma^2 I). For every x' with ||x' -
x||_2 <= r

    h_{p_l}(x) - L r  <=  h_p(x')  <=  h_{p_u}(x) + L r,      p_l, p_u = Phi(Phi^-1(p) -/+ r / sigma),

where L = 0 if the score reads x + noise only (Chiang et al., NeurIPS 2020), and L is the score's Lipschitz
constant in the clean image if it reads that as well (split certificate; proof in docs/certificates.md).
`alpha` is one-sided, per image. A score flags an image when `score > threshold`: a bound certifies an anomaly
if lower > threshold, a normal if upper <= threshold. A NaN score counts as -inf in lower bounds and as +inf
in upper bounds.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.special import ndtri

from certify.bounds import CDF_ERROR, clopper_pearson_lower, clopper_pearson_upper, shifted_ranks
from certify.checks import InputError, check_choice, check_positive, check_probability, check_radii
from certify.types import FloatArray, ScoreBounds

Decision: TypeAlias = Literal["anomalous", "normal"]
DECISIONS: tuple[Decision, ...] = ("anomalous", "normal")
ABSTAIN = -1

# Radii are shortened by this fraction, which exceeds the rounding error of scipy's beta and normal quantiles.
RADIUS_SLACK = 1e-12


def certify_scores(
    noisy_scores: Any,
    sigma: float,
    radii: Any,
    alpha: float,
    lipschitz: float = 0.0,
    percentile: float = 0.5,
) -> ScoreBounds:
    """Bound the percentile-smoothed score over L2 balls.

    Args:
        noisy_scores: (images, n) scores under independent draws of the noise.
        sigma: standard deviation of the noise that was really added, in pixel units of [0, 1].
        radii: L2 radii in the same units, each >= 0. Radius 0 gives the confidence bounds of the unattacked
            score.
        alpha: one-sided level of each bound, in (0, 0.5): lower and upper each fail with probability <=
            alpha, an image, a radius.
        lipschitz: the L of the split certificate; 0 only if the score is a function of x + noise alone.
        percentile: p of the smoothed score, in (0, 1).

    Returns:
        Bounds of shape (radii, images), infinite where `n` draws prove nothing, rounded outwards.

    Raises:
        InputError: for a value outside these ranges.
    """
    for_lower, for_upper = sorted_draws(noisy_scores)
    check_positive(sigma, "sigma")
    check_level(alpha)
    check_lipschitz(lipschitz)
    check_probability(percentile, "percentile")
    radii = check_radii(np.atleast_1d(np.asarray(radii, dtype=np.float64)))
    images, n = for_lower.shape
    lower, upper = np.full((len(radii), images), -np.inf), np.full((len(radii), images), np.inf)
    for row, radius in enumerate(radii):
        low_rank, high_rank = shifted_ranks(n, percentile, float(radius) / sigma, alpha)
        if low_rank >= 1:
            lower[row] = for_lower[:, low_rank - 1]
        if high_rank <= n:
            upper[row] = for_upper[:, high_rank - 1]
    return widen(lower, upper, lipschitz, radii)


def lipschitz_bounds(lower: FloatArray, upper: FloatArray, lipschitz: float, radii: Any) -> ScoreBounds:
    """Bound a score with global L2 Lipschitz constant L over balls, without noise or error probability.

    Args:
        lower: (images,) rigorous lower ends of the score in float64.
        upper: (images,) rigorous upper ends.
        lipschitz: the proven constant L.
        radii: L2 radii in pixel units of [0, 1].

    Returns:
        [lower - L r, upper + L r] of shape (radii, images), rounded outwards.
    """
    check_lipschitz(lipschitz)
    radii = check_radii(np.atleast_1d(np.asarray(radii, dtype=np.float64)))
    ends = ScoreBounds(lower, upper)
    if ends.lower.ndim != 1:
        raise InputError(f"lipschitz_bounds: got shape {ends.lower.shape}, need (images,)")
    shape = (len(radii), len(ends))
    return widen(np.broadcast_to(ends.lower, shape), np.broadcast_to(ends.upper, shape), lipschitz, radii)


def certified_radius(
    noisy_scores: Any,
    threshold: float,
    sigma: float,
    alpha: float,
    side: Decision,
    lipschitz: float = 0.0,
    percentile: float = 0.5,
) -> FloatArray:
    """Return for each image the largest certified L2 radius of one decision at a fixed threshold.

    The dual of `certify_scores`: for r > 0 the radius is at least r exactly where lower(r) > threshold
    (`side="anomalous"`) or upper(r) <= threshold (`side="normal"`), so at L = 0 and the median it is Cohen's
    sigma * Phi^-1(CPL(votes, n, alpha)). One event of probability 1 - alpha certifies all smaller radii too.
    `side` must not be chosen from these draws (it is the known label; or try both, at alpha / 2 each).

    Returns:
        (images,) radii in the units of `sigma`, 0.0 where nothing is certified.
    """
    check_choice(side, DECISIONS, "side")
    for_lower, for_upper = sorted_draws(noisy_scores)
    check_positive(sigma, "sigma")
    check_level(alpha)
    check_lipschitz(lipschitz)
    check_probability(percentile, "percentile")
    _check_threshold(threshold)
    n = for_lower.shape[1]
    # margin[:, c - 1]: how far the c-th most favourable draw lies on the right side of the threshold.
    if side == "anomalous":
        margin, offset = for_lower[:, ::-1] - threshold, float(ndtri(percentile))
        votes = margin > 0.0
    else:
        margin, offset = threshold - for_upper, -float(ndtri(percentile))
        votes = margin >= 0.0
    # c votes certify what the noise allows; they stay votes as long as their margin covers L r.
    # Stricter than `order_ranks` by a little, so that the bounds at the radius itself agree with it.
    stricter = alpha / (1.0 + 4.0 * CDF_ERROR)
    by_noise = sigma * (offset - ndtri(clopper_pearson_upper(n - np.arange(1, n + 1), n, stricter)))
    by_margin = margin / lipschitz if lipschitz > 0.0 else np.where(votes, np.inf, -np.inf)
    radius = np.minimum(by_noise, by_margin).max(axis=1)
    return np.asarray(np.maximum(radius, 0.0) * (1.0 - RADIUS_SLACK), dtype=np.float64)


def lipschitz_radius(
    lower: FloatArray, upper: FloatArray, threshold: float, lipschitz: float, side: Decision
) -> FloatArray:
    """Return the certified radii (images,) of one decision for a Lipschitz score: margin / L, or 0.0.

    Arguments as in `lipschitz_bounds` and `certified_radius`.
    """
    check_choice(side, DECISIONS, "side")
    check_positive(lipschitz, "lipschitz")
    _check_threshold(threshold)
    margin = np.asarray(lower) - threshold if side == "anomalous" else threshold - np.asarray(upper)
    return np.asarray(np.maximum(margin, 0.0) / lipschitz * (1.0 - RADIUS_SLACK), dtype=np.float64)


def percentile_scores(noisy_scores: Any, percentile: float = 0.5) -> FloatArray:
    """Estimate h_p of each image by its empirical counterpart, the ceil(p n)-th smallest draw.

    Raises:
        InputError: if a draw is NaN, since a point estimate has no safe side.
    """
    scores = check_scores(noisy_scores)
    check_probability(percentile, "percentile")
    invalid = invalid_draws(scores)
    if invalid.any():
        image = int(invalid.argmax())
        raise InputError(
            f"noisy_scores: image {image} has NaN in {invalid[image]} of {scores.shape[1]} draws"
        )
    # The rounding keeps 0.07 * 100 at rank 7 whatever the last bit of the product.
    rank = max(1, math.ceil(round(percentile * scores.shape[1], 9)))
    return np.asarray(np.partition(scores, rank - 1, axis=1)[:, rank - 1], dtype=np.float64)


def predict_scores(
    noisy_scores: Any, threshold: float, alpha: float, percentile: float = 0.5
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Decide each image by an exact two-sided binomial test: 1 anomalous, 0 normal, -1 abstain.

    A returned 0 or 1 differs from the decision of the true smoothed score (h_p > threshold) with probability
    <= alpha. At the median this is PREDICT of Cohen et al. (2019).
    """
    scores = check_scores(noisy_scores)
    check_level(alpha)
    check_probability(percentile, "percentile")
    _check_threshold(threshold)
    n = scores.shape[1]
    above = clopper_pearson_lower((scores > threshold).sum(axis=1), n, alpha / 2)  # NaN is neither above
    below = clopper_pearson_lower((scores <= threshold).sum(axis=1), n, alpha / 2)  # nor below
    decision = np.full(len(scores), ABSTAIN, dtype=np.int64)
    decision[below >= percentile] = 0
    decision[above >= 1.0 - percentile] = 1
    return decision


def invalid_draws(noisy_scores: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count the NaN draws of each image; certificates count them against the detector, reports name them."""
    return np.asarray(np.isnan(check_scores(noisy_scores)).sum(axis=1), dtype=np.int64)


def widen(lower: FloatArray, upper: FloatArray, lipschitz: float, radii: FloatArray) -> ScoreBounds:
    """Subtract and add L r, each operation rounded outwards; where L r = 0 the ends stay as they are."""
    shift = np.where(lipschitz * radii > 0.0, np.nextafter(lipschitz * radii, np.inf), 0.0)[:, None]
    return ScoreBounds(
        np.where(shift > 0.0, np.nextafter(lower - shift, -np.inf), lower),
        np.where(shift > 0.0, np.nextafter(upper + shift, np.inf), upper),
    )


def sorted_draws(noisy_scores: Any) -> tuple[FloatArray, FloatArray]:
    """Return the sorted draws for lower bounds (NaN as -inf) and for upper bounds (NaN as +inf)."""
    scores = check_scores(noisy_scores)
    invalid = np.isnan(scores)
    if not invalid.any():
        ordered = np.sort(scores, axis=1)
        return ordered, ordered
    return np.sort(np.where(invalid, -np.inf, scores), axis=1), np.sort(
        np.where(invalid, np.inf, scores), axis=1
    )


def check_scores(noisy_scores: Any) -> FloatArray:
    """Return noisy scores as float64 (images, n)."""
    scores = np.asarray(noisy_scores, dtype=np.float64)
    if scores.ndim != 2 or scores.size == 0:
        raise InputError(
            f"noisy_scores: got shape {scores.shape}, need (images, n); one image is scores[None]"
        )
    return scores


def check_level(alpha: float) -> None:
    """Refuse what is no one-sided level in (0, 0.5)."""
    if not 0.0 < alpha < 0.5:
        raise InputError(f"alpha: got {alpha}, need a one-sided level strictly between 0 and 0.5")


def check_lipschitz(lipschitz: float) -> None:
    """Refuse what is no Lipschitz constant: finite, at least 0."""
    if not (math.isfinite(lipschitz) and lipschitz >= 0.0):
        raise InputError(f"lipschitz: got {lipschitz}, need a finite constant of at least 0")


def _check_threshold(threshold: float) -> None:
    if not math.isfinite(threshold):
        raise InputError(
            f"threshold: got {threshold}, need a finite value; calibrate on held-out normal images"
        )
