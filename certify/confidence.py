"""Confidence of a whole metric, from bounds that each hold at the level of one image.

A cell (one radius, one side) reads one end of each image: the lower end of an anomaly, the upper end of a
normal image. Each end is wrong with probability at most `alpha_per_image` over the certification noise. How
that becomes one statement is chosen before looking:

`union`       No end is wrong: alpha_per_image <= alpha / images. The test images are fixed; their noise may be
              shared. The metric of the bounds stands as it is.
`failures`    Ends may be wrong, but with probability 1 - alpha at most k of them, a quantile of the binomial
              distribution, since with independent noise the number of wrong ends is stochastically below
              Bin(images, alpha_per_image). The metric gives up its k most valuable images. The test images
              are fixed. At alpha_per_image = alpha / images k is 0: this contains the union bound.
`population`  The images of each class are independent draws, with independent noise. The statement is about
              the robust metric expected on further draws, and pays for the test set as well.

Several radii or sides claimed jointly divide `alpha` by their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.stats import binom

from certify.bounds import clopper_pearson_lower, clopper_pearson_upper, hoeffding_lower
from certify.checks import InputError, check_choice
from certify.metrics import auroc, worst_case
from certify.types import FloatArray, ScoreBounds, Side
from certify.uncertainty import placement_values

ConfidenceMethod: TypeAlias = Literal["union", "failures", "population"]
CONFIDENCE_METHODS: tuple[ConfidenceMethod, ...] = ("union", "failures", "population")


@dataclass(frozen=True)
class Confidence:
    """A bound of a whole metric and what it says.

    Attributes:
        value: the bound, a float or (radii,); lower for AUROC and TPR, upper for FPR.
        correction: how far it lies from the metric of the bounds alone, at least 0, of the same shape.
        alpha: level of the statement, one-sided; 0.0 where nothing is random.
        method: one of CONFIDENCE_METHODS.
        statement: one sentence that speaks of 'the value'.
    """

    value: float | FloatArray
    correction: float | FloatArray
    alpha: float
    method: ConfidenceMethod
    statement: str


def auroc_confidence(
    bounds: ScoreBounds,
    labels: Any,
    side: Side = "both",
    unattacked: ScoreBounds | None = None,
    *,
    method: ConfidenceMethod,
    alpha: float,
    alpha_per_image: float,
) -> Confidence:
    """Bound the robust AUROC of a smoothed detector at confidence 1 - alpha.

    Args:
        bounds: certified intervals (images,) or (radii, images); each radius is a statement of its own.
        labels: as `side` and `unattacked` in `auroc`.
        method: `union`, `failures` or `population`; see the module. Choose it before looking.
        alpha: total level of each value, in (0, 0.5).
        alpha_per_image: the one-sided level at which each end was computed, in [0, 0.5); 0.0 for bounds
            without noise, such as those of a Lipschitz score. With `unattacked`, of its ends too.

    Returns:
        A `Confidence`. `population` rests on Hoeffding's inequality for two-sample U-statistics: for a random
        pair E[pairs won by the bounds] <= AUROC + 2 alpha_per_image (1 - AUROC), as a pair that is lost in
        truth is won by its bounds only if one of them is wrong.

    Raises:
        InputError: if `union` is asked for and alpha_per_image exceeds alpha / images.
    """
    anomalies, normals = worst_case(bounds, labels, side, unattacked)
    _check_levels(method, alpha, alpha_per_image, len(bounds))
    plain = np.atleast_1d(auroc(bounds, labels, side, unattacked))
    value = plain.copy()
    for row, worst in enumerate(zip(np.atleast_2d(anomalies), np.atleast_2d(normals), strict=True)):
        if method == "failures":
            value[row] = max(0.0, plain[row] - _most_lost(*worst, alpha, alpha_per_image))
        elif method == "population":
            expected = hoeffding_lower(float(plain[row]), min(worst[0].size, worst[1].size), alpha)
            value[row] = _without_wrong_ends(expected, 2.0 * alpha_per_image)
    statement = auroc_statement(method, alpha=alpha, alpha_per_image=alpha_per_image, side=side)
    return _confidence(value, plain, bounds, alpha, alpha_per_image, method, statement)


def tpr_fpr_confidence(
    bounds: ScoreBounds,
    labels: Any,
    threshold: float,
    side: Side = "both",
    unattacked: ScoreBounds | None = None,
    *,
    method: ConfidenceMethod,
    alpha: float,
    alpha_per_image: float,
) -> tuple[Confidence, Confidence]:
    """Bound the robust true- and false-positive rate of `score > threshold`, both together at 1 - alpha.

    Arguments as in `auroc_confidence`; the threshold comes from held-out normal images, never from these.
    `failures` and `population` give each rate alpha / 2. For `failures` each class may lose its own k images.
    For `population` the flags of a class are independent coins: an image whose worst score does not flag it is
    flagged by its bound with probability at most a = alpha_per_image, so that the rate q of the bounds obeys
    q <= TPR + a (1 - TPR), and TPR >= (CPL - a) / (1 - a) with CPL the exact (Clopper-Pearson) lower bound of
    q. In the same way 1 - q <= 1 - FPR + a FPR, and FPR <= CPU / (1 - a).

    Returns:
        (TPR, a lower bound; FPR, an upper bound).
    """
    if not math.isfinite(threshold):
        raise InputError(f"threshold: got {threshold}, need a finite value")
    anomalies, normals = worst_case(bounds, labels, side, unattacked)
    _check_levels(method, alpha, alpha_per_image, len(bounds))
    results = []
    for scores, limit, name, verb, where in (
        (anomalies, _rate_lower, "the true-positive rate", "lowers", "below"),
        (normals, _rate_upper, "the false-positive rate", "raises", "above"),
    ):
        flagged, total = np.atleast_2d(scores > threshold).sum(axis=1), scores.shape[-1]
        value = np.array([limit(int(count), total, method, alpha / 2, alpha_per_image) for count in flagged])
        statement = _statement(name, verb, where, method, alpha, alpha_per_image, side)
        results.append(_confidence(value, flagged / total, bounds, alpha, alpha_per_image, method, statement))
    return results[0], results[1]


def auroc_statement(
    method: ConfidenceMethod, *, alpha: float, alpha_per_image: float, side: Side = "both"
) -> str:
    """Return the sentence that `auroc_confidence` gives with its bound; it speaks of 'the radius' and 'the value'."""
    return _statement("the AUROC", "lowers", "below", method, alpha, alpha_per_image, side)


def failure_count(bounds: int, alpha_per_image: float, alpha: float) -> int:
    """Return the number k of wrong bounds that is exceeded with probability at most `alpha`.

    It is min{k : P(Bin(bounds, alpha_per_image) > k) <= alpha}. The failures of independent bounds, each of
    probability at most `alpha_per_image`, are stochastically fewer than that binomial count.
    """
    if bounds < 1:
        raise InputError(f"bounds: got {bounds}, need at least one")
    count = 0
    while binom.sf(count, bounds, alpha_per_image) > alpha:
        count += 1
    return count


def _most_lost(anomalies: FloatArray, normals: FloatArray, alpha: float, alpha_per_image: float) -> float:
    """The most AUROC that the wrong ends can have contributed.

    Without its wrong anomalies and normal images, the AUROC of the bounds loses at most the sum of their
    placement values, each over the size of its class. Their number is bounded for both classes together or,
    at alpha / 2, for each by itself; the counts alone say which, never the scores.
    """
    m, n = anomalies.size, normals.size
    of_anomalies, of_normals = placement_values(anomalies, normals)
    together = failure_count(m + n, alpha_per_image, alpha)
    apart = [failure_count(size, alpha_per_image, alpha / 2) for size in (m, n)]
    if together / min(m, n) <= apart[0] / m + apart[1] / n:
        return _largest(np.r_[of_anomalies / m, of_normals / n], together)
    return _largest(of_anomalies / m, apart[0]) + _largest(of_normals / n, apart[1])


def _largest(values: FloatArray, count: int) -> float:
    return float(np.sort(values)[::-1][:count].sum())


def _rate_lower(
    flagged: int, total: int, method: ConfidenceMethod, alpha: float, alpha_per_image: float
) -> float:
    """Lower bound of a true-positive rate of which the lower ends show flagged / total."""
    if method == "union":
        return flagged / total
    if method == "failures":
        return max(0, flagged - failure_count(total, alpha_per_image, alpha)) / total
    return _without_wrong_ends(clopper_pearson_lower(flagged, total, alpha), alpha_per_image)


def _rate_upper(
    flagged: int, total: int, method: ConfidenceMethod, alpha: float, alpha_per_image: float
) -> float:
    """Upper bound of a false-positive rate of which the upper ends show flagged / total."""
    if method == "union":
        return flagged / total
    if method == "failures":
        return min(total, flagged + failure_count(total, alpha_per_image, alpha)) / total
    return min(1.0, clopper_pearson_upper(flagged, total, alpha) / (1.0 - alpha_per_image))


def _without_wrong_ends(shown: float, wrong: float) -> float:
    """Solve shown <= true + wrong (1 - true) for the smallest true."""
    return max(0.0, (shown - wrong) / (1.0 - wrong))


def _confidence(
    value: FloatArray,
    plain: FloatArray,
    bounds: ScoreBounds,
    alpha: float,
    alpha_per_image: float,
    method: ConfidenceMethod,
    statement: str,
) -> Confidence:
    correction = np.abs(plain - value)
    level = 0.0 if alpha_per_image == 0.0 and method != "population" else alpha
    if bounds.lower.ndim == 1:
        return Confidence(float(value[0]), float(correction[0]), level, method, statement)
    return Confidence(value, correction, level, method, statement)


def _statement(
    metric: str,
    verb: str,
    where: str,
    method: ConfidenceMethod,
    alpha: float,
    alpha_per_image: float,
    side: Side,
) -> str:
    images = {"in": " on normal images", "out": " on anomalous images", "both": "", "clean": ""}[side]
    certain = alpha_per_image == 0.0
    if method == "population":
        source = "the draw of the test images" + ("" if certain else " and the certification noise")
        claim = f"{metric} of the smoothed detector expected on images drawn like these"
    else:
        source = "" if certain else "the certification noise"
        if method == "failures" and not certain:
            source += ", independent between images"
        claim = f"{metric} of the smoothed detector on these images"
    if certain:
        claim = claim.replace("smoothed ", "")
    given = f"With probability at least 1 - {alpha:g} over {source}, " if source else ""
    if side == "clean":
        sentence = f"{claim} without an attack is not {where} the value."
    else:
        sentence = f"no attack{images} within the radius {verb} {claim} {where} the value."
    return given + sentence if given else sentence[0].upper() + sentence[1:]


def _check_levels(method: str, alpha: float, alpha_per_image: float, images: int) -> None:
    check_choice(method, CONFIDENCE_METHODS, "method")
    for name, level, low in (("alpha", alpha, "above"), ("alpha_per_image", alpha_per_image, "at least")):
        if not 0.0 <= level < 0.5 or (name == "alpha" and level == 0.0):
            raise InputError(f"{name}: got {level}, need a one-sided level {low} 0 and below 0.5")
    # The last bits of alpha / images * images are forgiven.
    if method == "union" and alpha_per_image * images > alpha * (1.0 + 1e-12):
        raise InputError(
            f"alpha_per_image: got {alpha_per_image:g} for {images} images, the union bound at alpha {alpha:g} "
            f"needs at most {alpha / images:g}; recompute the bounds or use method='failures'"
        )
