"""Several noise levels in one score: a weighted sum of percentiles, each smoothed at its own sigma.

    s(x) = sum_t w_t h_p^(t)(x),        w_t > 0,        h_p^(t) the percentile of level t under noise of sigma_t.

The certificate is the sum of the levels' certificates. With T levels, each at alpha / T, all T bounds hold at once with
probability 1 - alpha (union bound, so whatever the levels have in common), and then for every |x' - x| <= r

    sum_t w_t [lower_t(r)]  <=  s(x')  <=  sum_t w_t [upper_t(r)],

where lower_t(r) = z_(k_t) - L_t r as in `certify_scores`. No level's sigma is weakened by the others; the bound is
finite where every level's is.

WARNING. What is summed are percentiles, never the scores of one draw. A score formed per draw from several noisy copies
of the image that share their noise, y_t = x + sigma_t e with one e, is certified by nothing: two such copies give the
clean image back exactly,

    x = (sigma_2 y_1 - sigma_1 y_2) / (sigma_2 - sigma_1),

so the score may read x as if there were no noise. Per draw the noises would have to be independent, and would certify
with sigma = (sum_t sigma_t^-2)^(-1/2), less than the smallest. Here the levels are sampled one by one with noise keyed
apart, so no score ever sees two copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from certify.bounds import CDF_ERROR, clopper_pearson_upper
from certify.certificate import (
    DECISIONS,
    RADIUS_SLACK,
    Decision,
    certify_scores,
    percentile_scores,
)
from certify.checks import InputError, check_choice, check_positive
from certify.types import FloatArray, ScoreBounds

# Halvings of an interval of radii: more than the digits of a float64.
_HALVINGS = 60


@dataclass(frozen=True)
class NoiseLevel:
    """One term of the sum: its noise (pixel units of [0, 1]), weight, percentile, and the L of its score."""

    sigma: float
    weight: float = 1.0
    lipschitz: float = 0.0
    percentile: float = 0.5


def sum_bounds(parts: Sequence[ScoreBounds], weights: Sequence[float]) -> ScoreBounds:
    """Add bounds: if every part holds, so does the result, for the weighted sum of the scores.

    Args:
        parts: bounds of equal shape, one a level.
        weights: finite and above 0, one a part.

    Returns:
        Bounds of that shape, rounded outwards; an end is infinite where that end of any part is.
    """
    if len(parts) == 0 or len(parts) != len(weights):
        raise InputError(
            f"sum_bounds: got {len(parts)} bounds and {len(weights)} weights, need one of each a level"
        )
    if len({part.lower.shape for part in parts}) > 1:
        raise InputError(f"sum_bounds: got shapes {[part.lower.shape for part in parts]}, need equal ones")
    for weight in weights:
        check_positive(weight, "weights")
    if len(parts) == 1 and weights[0] == 1.0:
        return parts[0]
    lower = _sum_down([part.lower for part in parts], weights)
    return ScoreBounds(lower, -_sum_down([-part.upper for part in parts], weights))


def certify_sum(
    draws: Sequence[FloatArray], levels: Sequence[NoiseLevel], radii: Sequence[float], alpha: float
) -> ScoreBounds:
    """Bound s over L2 balls from the draws (images, n) of each level, all under independent noise within a level.

    `alpha` is one-sided, an image, a radius, for the sum as a whole. Returns bounds (radii, images); see
    `certify_scores`.
    """
    _check_levels(draws, levels)
    parts = [
        certify_scores(scores, level.sigma, radii, alpha / len(levels), level.lipschitz, level.percentile)
        for scores, level in zip(draws, levels, strict=True)
    ]
    return sum_bounds(parts, [level.weight for level in levels])


def sum_scores(draws: Sequence[FloatArray], levels: Sequence[NoiseLevel]) -> FloatArray:
    """Estimate s of each image (images,) by the weighted sum of the empirical percentiles."""
    _check_levels(draws, levels)
    parts = [
        level.weight * percentile_scores(scores, level.percentile)
        for scores, level in zip(draws, levels, strict=True)
    ]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def sum_radius(
    draws: Sequence[FloatArray],
    levels: Sequence[NoiseLevel],
    threshold: float,
    alpha: float,
    side: Decision,
) -> FloatArray:
    """Return for each image the largest certified L2 radius of one decision at a fixed threshold.

    The largest r with lower(r) > threshold (`anomalous`) or upper(r) <= threshold (`normal`), found by bisection. It
    is chosen from the draws, yet at level `alpha` as a whole: lower(r) falls with r on every outcome, so a radius
    beyond the true one is returned only if the bound *at* the true one failed (fixed-sequence test). With one level
    it is `certified_radius`. `side` must not be chosen from these draws.

    Returns:
        (images,) radii in the units of the sigmas, 0.0 where nothing is certified.
    """
    _check_levels(draws, levels)
    check_choice(side, DECISIONS, "side")
    if not np.isfinite(threshold):
        raise InputError(f"threshold: got {threshold}, need a finite value")
    ladders = [
        _Ladder.of(scores, level, alpha / len(levels), side)
        for scores, level in zip(draws, levels, strict=True)
    ]
    weights = [level.weight for level in levels]

    def certified(radii: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        lower = _sum_down([ladder.lower(radii) for ladder in ladders], weights)
        return np.asarray(lower > threshold if side == "anomalous" else lower >= -threshold)

    low = np.zeros(len(draws[0]))
    high = np.full(len(low), max(0.0, min(ladder.reach[0] for ladder in ladders)))
    sound = certified(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        holds = certified(middle)
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return np.asarray(np.where(sound, low, 0.0) * (1.0 - RADIUS_SLACK), dtype=np.float64)


@dataclass(frozen=True)
class _Ladder:
    """The lower bounds of one level at all radii; for the side `normal`, of the negated score.

    `reach[k - 1]`, falling, is the radius up to which the rank of the lower bound is at least k.
    """

    ordered: FloatArray
    reach: FloatArray
    lipschitz: float

    @classmethod
    def of(cls, scores: FloatArray, level: NoiseLevel, alpha: float, side: Decision) -> _Ladder:
        sign, n = (1.0 if side == "anomalous" else -1.0), scores.shape[1]
        against_us = np.where(np.isnan(scores), -np.inf, sign * scores)  # NaN counts against us on both sides
        # A little above the quantiles where `order_ranks` takes the ranks, so that `certify_sum` at a radius agrees.
        quantiles = clopper_pearson_upper(np.arange(n), n, alpha / (1.0 + 4.0 * CDF_ERROR))
        reach = level.sigma * (sign * float(ndtri(level.percentile)) - ndtri(quantiles))
        return cls(np.sort(against_us, axis=1), reach, level.lipschitz)

    def lower(self, radii: FloatArray) -> FloatArray:
        """Return the bound (images,) of each image at its own radius."""
        ranks = len(self.reach) - np.searchsorted(self.reach[::-1], radii, side="left")
        bound = np.take_along_axis(self.ordered, np.maximum(ranks - 1, 0)[:, None], axis=1)[:, 0]
        if self.lipschitz > 0.0:
            bound = np.nextafter(bound - np.nextafter(self.lipschitz * radii, np.inf), -np.inf)
        return np.where(ranks > 0, bound, -np.inf)


def _sum_down(terms: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """Return the weighted sum, each operation rounded down; -inf where any term is."""
    total = np.zeros_like(terms[0])
    lost = np.zeros(terms[0].shape, dtype=bool)
    for term, weight in zip(terms, weights, strict=True):
        infinite = np.isneginf(term)
        product = np.nextafter(weight * np.where(infinite, 0.0, term), -np.inf)
        total, lost = np.nextafter(total + product, -np.inf), lost | infinite
    return np.where(lost, -np.inf, total)


def _check_levels(draws: Sequence[FloatArray], levels: Sequence[NoiseLevel]) -> None:
    if len(levels) == 0 or len(draws) != len(levels):
        raise InputError(
            f"levels: got draws of {len(draws)} levels for {len(levels)}, need one array a level"
        )
    if len({len(scores) for scores in draws}) > 1:
        raise InputError(
            f"levels: got draws of {[len(scores) for scores in draws]} images, need equal numbers"
        )
    for level in levels:
        check_positive(level.weight, "weights")
