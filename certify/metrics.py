"""Score bounds to detection metrics: the worst value that the bounds allow, for each side.

An attacker who may move every image inside its interval does worst by putting anomalies at their lower ends
and normal images at their upper ends, since every metric here is monotone in each score. With certificates
the result is a lower bound of the robust metric (an upper bound for false-alarm rates); with the intervals
that an attack reached it is the attacked metric. Infinite ends are counted, never dropped: an anomaly at -inf
or a normal image at +inf loses every comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from certify.checks import InputError, check_choice, check_labels, check_probability
from certify.types import SIDES, FloatArray, ScoreBounds, Side

Metric = Callable[[FloatArray, FloatArray], float]


def auroc(
    bounds: ScoreBounds, labels: Any, side: Side = "both", unattacked: ScoreBounds | None = None
) -> float | FloatArray:
    """Return the worst AUROC that the bounds allow; ties count one half.

    Args:
        bounds: intervals (images,) or (radii, images).
        labels: (images,), 0 normal and 1 anomalous, both present.
        side: who is attacked: `both`, `in` (normal images only), `out` (anomalies only), `clean` (nobody).
        unattacked: (images,) ScoreBounds at radius 0 — the confidence bounds of a certificate, the clean
            scores of an attack — that stand for the images left alone. `in` and `out` refuse to do without;
            `clean` does so unless lower == upper.

    Returns:
        A float for bounds (images,), float64 (radii,) otherwise. 0.5 certifies nothing, since a constant
        score has it.
    """
    return _each_radius(_auroc, bounds, labels, side, unattacked)


def average_precision(
    bounds: ScoreBounds, labels: Any, side: Side = "both", unattacked: ScoreBounds | None = None
) -> float | FloatArray:
    """Return the worst average precision (step form) that the bounds allow. Arguments as in `auroc`.

    Ties are ordered pessimistically, normal images first and tied anomalies one after the other, so the value
    is at most scikit-learn's for every choice of scores within the bounds, and equal to it for exact scores
    without ties.
    """
    return _each_radius(_average_precision, bounds, labels, side, unattacked)


def fpr_at_tpr(
    bounds: ScoreBounds,
    labels: Any,
    side: Side = "both",
    unattacked: ScoreBounds | None = None,
    *,
    tpr: float = 0.95,
) -> float | FloatArray:
    """Return the worst false-positive rate at the threshold that keeps a share `tpr` of the anomalies: an upper bound.

    It is 1 where more than 1 - tpr of the anomalies have no finite lower bound. Arguments as in `auroc`.
    """
    check_probability(tpr, "tpr")
    return _each_radius(
        lambda anomalies, normals: _fpr_at_tpr(anomalies, normals, tpr), bounds, labels, side, unattacked
    )


def tpr_fpr_at_threshold(
    bounds: ScoreBounds,
    labels: Any,
    threshold: float,
    side: Side = "both",
    unattacked: ScoreBounds | None = None,
) -> tuple[float | FloatArray, float | FloatArray]:
    """Return the worst true- and false-positive rate of the decision `score > threshold`: lower and upper bound.

    The threshold comes from held-out normal images. Arguments as in `auroc`.
    """
    if not math.isfinite(threshold):
        raise InputError(f"threshold: got {threshold}, need a finite value")
    return (
        _each_radius(
            lambda anomalies, _: float((anomalies > threshold).mean()), bounds, labels, side, unattacked
        ),
        _each_radius(
            lambda _, normals: float((normals > threshold).mean()), bounds, labels, side, unattacked
        ),
    )


def rate_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Return the two-sided Clopper-Pearson interval of a rate over test images, from statsmodels.

    This is sampling error of the test set; a certificate's alpha is about the noise on the images given, and
    excludes it.
    """
    check_probability(level, "level")
    if trials < 1 or not 0 <= successes <= trials:
        raise InputError(
            f"successes: got {successes} of {trials} trials, need 0 <= successes <= trials, trials >= 1"
        )
    low, high = proportion_confint(successes, trials, alpha=1.0 - level, method="beta")
    return float(low), float(high)


def worst_case(
    bounds: ScoreBounds, labels: Any, side: Side = "both", unattacked: ScoreBounds | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the worst scores for a side: (..., anomalies) and (..., normals)."""
    check_choice(side, SIDES, "side")
    anomalous = check_labels(labels, len(bounds)) == 1
    calm = _unattacked(bounds, side, unattacked)
    for_anomalies = bounds if side in ("out", "both") else calm
    for_normals = bounds if side in ("in", "both") else calm
    shape = bounds.lower.shape
    return (
        np.broadcast_to(for_anomalies.lower, shape)[..., anomalous],
        np.broadcast_to(for_normals.upper, shape)[..., ~anomalous],
    )


def _unattacked(bounds: ScoreBounds, side: Side, unattacked: ScoreBounds | None) -> ScoreBounds:
    """Return what stands for the images left alone, or refuse to guess it."""
    if unattacked is None:
        if side in ("in", "out"):
            raise InputError(
                f"side {side!r} leaves some images alone: give `unattacked`, the ScoreBounds at radius 0 "
                "(for an attack, those of the clean scores)"
            )
        if side == "clean" and not np.array_equal(bounds.lower, bounds.upper):
            raise InputError(
                "side 'clean': these bounds are no exact scores; give `unattacked`, the ones at radius 0"
            )
        return bounds
    if unattacked.lower.shape != (len(bounds),):
        raise InputError(
            f"unattacked: got shape {unattacked.lower.shape}, need ({len(bounds)},), one interval an image"
        )
    return unattacked


def _each_radius(
    metric: Metric, bounds: ScoreBounds, labels: Any, side: Side, unattacked: ScoreBounds | None
) -> float | FloatArray:
    anomalies, normals = worst_case(bounds, labels, side, unattacked)
    if anomalies.ndim == 1:
        return metric(anomalies, normals)
    return np.array([metric(*row) for row in zip(anomalies, normals, strict=True)], dtype=np.float64)


def _auroc(anomalies: FloatArray, normals: FloatArray) -> float:
    """Count won pairs in O(N log N); anomalies at -inf and normal images at +inf always lose."""
    known = np.sort(normals[normals < np.inf])
    hopeful = anomalies[anomalies > -np.inf]
    half_wins = np.searchsorted(known, hopeful, "left").sum() + np.searchsorted(known, hopeful, "right").sum()
    return float(half_wins / (2 * anomalies.size * normals.size))


def _average_precision(anomalies: FloatArray, normals: FloatArray) -> float:
    """Average i / (i + normals at or above the i-th highest anomaly)."""
    found = np.arange(1, anomalies.size + 1)
    false_alarms = normals.size - np.searchsorted(np.sort(normals), np.sort(anomalies)[::-1], "left")
    return float(np.mean(found / (found + false_alarms)))


def _fpr_at_tpr(anomalies: FloatArray, normals: FloatArray, tpr: float) -> float:
    # The rounding keeps 0.95 * 20 at 19 anomalies whatever the last bit of the product.
    needed = max(1, math.ceil(round(tpr * anomalies.size, 9)))
    lowest_kept = np.sort(anomalies)[anomalies.size - needed]
    return float((normals >= lowest_kept).mean())
