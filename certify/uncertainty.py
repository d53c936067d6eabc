"""Test-set uncertainty: how far a metric may move with other test images drawn from the same sources.

This is not the confidence of a certificate, which is about the noise on the images given (`confidence`): the
two stand side by side. DeLong, DeLong and Clarke-Pearson (Biometrics 1988) for the AUROC, a stratified
bootstrap for every metric. Both look at the worst scores that the bounds allow, lower ends of anomalies and
upper ends of normal images, so that exact scores give the usual clean intervals; infinite ends lose their
pairs as in `auroc`. The images of a class are taken as independent draws: several crops of one object are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from certify.bounds import hoeffding_lower
from certify.checks import InputError, check_probability
from certify.metrics import auroc, worst_case
from certify.resampling import resampled_aurocs, resampled_rows
from certify.types import FloatArray, ScoreBounds, Side

Worst = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Estimate:
    """A metric with its test-set uncertainty.

    `low` and `high` are the ends of the two-sided interval at `level`; `method` is the one that was used:
    `delong`, `hoeffding` (where DeLong's variance estimate is 0 and says nothing) or `bootstrap`.
    """

    value: float
    standard_error: float
    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True)
class Comparison(Estimate):
    """The difference of a metric, first minus second detector, and the two-sided p-value of 'no difference'."""

    p_value: float


def placement_values(anomalies: FloatArray, normals: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what each image contributes to the AUROC: the means of both arrays are the AUROC.

    For each anomaly (m,) the share of normal images that it beats, for each normal image (n,) the share of
    anomalies that beat it; ties count one half, anomalies at -inf and normal images at +inf never win. Costs
    O((m + n) log(m + n)), by midranks (Sun and Xu, IEEE Signal Processing Letters 2014).
    """
    known, hopeful = np.sort(normals[normals < np.inf]), np.sort(anomalies[anomalies > -np.inf])
    beaten = np.where(anomalies > -np.inf, _midranks(known, anomalies), 0.0)
    beaten_by = np.where(normals < np.inf, hopeful.size - _midranks(hopeful, normals), 0.0)
    return beaten / normals.size, beaten_by / anomalies.size


def delong_interval(
    bounds: ScoreBounds,
    labels: Any,
    side: Side = "both",
    unattacked: ScoreBounds | None = None,
    *,
    level: float = 0.95,
) -> Estimate:
    """Return the AUROC of the worst scores with DeLong's standard error and an interval on the logit scale.

    Args:
        bounds: intervals (images,); of several radii take one by `bounds.at(i)`.
        labels: (images,), 0 normal and 1 anomalous, at least two of each.
        side: who is attacked; see `auroc`.
        unattacked: (images,) bounds at radius 0 for `in` and `out`; see `auroc`.
        level: of the two-sided interval, in (0, 1).

    Returns:
        An `Estimate`. The logit scale keeps the ends inside (0, 1) and their coverage near `level` for AUROCs
        near 1 (Pepe 2003). A perfect AUROC, and every other one without variance, has the
        interval of Hoeffding's inequality instead, which is wide but does not pretend to be a point.
    """
    anomalies, normals = _placements(_worst(bounds, labels, side, unattacked))
    value, error = float(auroc(bounds, labels, side, unattacked)), _standard_error(anomalies, normals)
    z = _normal_quantile(level)
    if error > 0.0:
        reach = z * error / (value * (1.0 - value))
        low, high = (float(expit(logit(value) + sign * reach)) for sign in (-1.0, 1.0))
        return Estimate(value, error, low, high, level, "delong")
    size, tail = min(anomalies.size, normals.size), (1.0 - level) / 2
    low, high = hoeffding_lower(value, size, tail), 1.0 - hoeffding_lower(1.0 - value, size, tail)
    return Estimate(value, 0.0, low, high, level, "hoeffding")


def delong_test(
    first: ScoreBounds,
    second: ScoreBounds,
    labels: Any,
    side: Side = "both",
    unattacked: tuple[ScoreBounds, ScoreBounds] | None = None,
    *,
    level: float = 0.95,
) -> Comparison:
    """Compare the AUROCs of two detectors on the same images: DeLong's paired test.

    Arguments as in `delong_interval`, with one `unattacked` a detector. The interval is the normal one,
    difference -/+ z * standard error. Where every image contributes the same difference the variance
    estimate is 0, and interval and p-value come from Hoeffding's inequality.
    """
    calm = (None, None) if unattacked is None else unattacked
    one = _placements(_worst(first, labels, side, calm[0]))
    other = _placements(_worst(second, labels, side, calm[1]))
    anomalies, normals = one[0] - other[0], one[1] - other[1]
    value = float(auroc(first, labels, side, calm[0])) - float(auroc(second, labels, side, calm[1]))
    error = _standard_error(anomalies, normals)
    z, size = _normal_quantile(level), min(anomalies.size, normals.size)
    if error > 0.0:
        method, reach, p_value = "delong", z * error, 2.0 * float(ndtr(-abs(value) / error))
    else:
        method, reach = "hoeffding", float(np.sqrt(2.0 * np.log(2.0 / (1.0 - level)) / size))
        p_value = min(1.0, 2.0 * float(np.exp(-size * value**2 / 2.0)))
    low, high = max(-1.0, value - reach), min(1.0, value + reach)
    return Comparison(value, error, low, high, level, method, p_value)


def bootstrap_interval(
    metric: Callable[[ScoreBounds, Any], float | FloatArray],
    bounds: ScoreBounds,
    labels: Any,
    side: Side = "both",
    unattacked: ScoreBounds | None = None,
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Return any metric of `certify.metrics` with its stratified percentile bootstrap interval.

    Args:
        metric: a function of (bounds, labels), such as `auroc` or `functools.partial(fpr_at_tpr, tpr=0.9)`.
        bounds: as `labels`, `side` and `unattacked` in `delong_interval`.
        seed: key of the resampling; the same number gives the same interval and, in `bootstrap_test`, the
            same resamples for every pair of detectors on these images.
        resamples: draws of as many anomalies and normal images as there are, each class by itself.
        level: of the two-sided interval, in (0, 1).

    Returns:
        An `Estimate` for the metric of the worst scores. A metric that is the same in every resample, such as
        an AUROC of 1, has an interval of length 0, which is no evidence.
    """
    worst = _worst(bounds, labels, side, unattacked)
    drawn = _resampled(metric, worst, seed, resamples)
    return Estimate(_value(metric, worst), *_spread(drawn, level), level, "bootstrap")


def bootstrap_test(
    metric: Callable[[ScoreBounds, Any], float | FloatArray],
    first: ScoreBounds,
    second: ScoreBounds,
    labels: Any,
    side: Side = "both",
    unattacked: tuple[ScoreBounds, ScoreBounds] | None = None,
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Comparison:
    """Compare any metric of two detectors on the same images, resampled together (paired bootstrap).

    Arguments as in `bootstrap_interval`, with one `unattacked` a detector. The p-value is twice the smaller
    share of resamples on either side of 0, the observed data counted as one of them.
    """
    calm = (None, None) if unattacked is None else unattacked
    one, other = _worst(first, labels, side, calm[0]), _worst(second, labels, side, calm[1])
    drawn = _resampled(metric, one, seed, resamples) - _resampled(metric, other, seed, resamples)
    beyond = min((drawn <= 0.0).sum(), (drawn >= 0.0).sum())
    p_value = min(1.0, 2.0 * (1.0 + float(beyond)) / (resamples + 1.0))
    value = _value(metric, one) - _value(metric, other)
    return Comparison(value, *_spread(drawn, level), level, "bootstrap", p_value)


def _midranks(ordered: FloatArray, values: FloatArray) -> FloatArray:
    """How many of `ordered` each value beats; ties count one half."""
    both = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(both / 2, dtype=np.float64)


def _worst(bounds: ScoreBounds, labels: Any, side: Side, unattacked: ScoreBounds | None) -> Worst:
    if bounds.lower.ndim != 1:
        raise InputError(f"bounds: got shape {bounds.lower.shape}, need (images,); take one radius by at(i)")
    return worst_case(bounds, labels, side, unattacked)


def _placements(worst: Worst) -> Worst:
    if min(worst[0].size, worst[1].size) < 2:
        raise InputError(
            f"labels: got {worst[1].size} normal and {worst[0].size} anomalous images; "
            "a variance needs at least two of each"
        )
    return placement_values(*worst)


def _standard_error(anomalies: FloatArray, normals: FloatArray) -> float:
    """DeLong's: the variances of both sets of placement values, each over its number of images."""
    variance = anomalies.var(ddof=1) / anomalies.size + normals.var(ddof=1) / normals.size
    # Equal placement values may differ from their mean by an ulp; a true variance is far above this.
    return float(np.sqrt(variance)) if variance > 1e-30 else 0.0


def _normal_quantile(level: float) -> float:
    check_probability(level, "level")
    return float(ndtri((1.0 + level) / 2))


def _resampled(metric: Any, worst: Worst, seed: int, resamples: int) -> FloatArray:
    """The metric in each resample; of the AUROC all at once."""
    if metric is auroc:
        return resampled_aurocs(*worst, seed, resamples)
    rows = resampled_rows(worst[0].size, worst[1].size, seed, resamples)
    return np.array([_value(metric, worst, drawn) for drawn in rows])


def _value(metric: Any, worst: Worst, rows: tuple[Any, Any] = (slice(None), slice(None))) -> float:
    anomalies, normals = worst[0][rows[0]], worst[1][rows[1]]
    labels = np.r_[np.ones(anomalies.size, dtype=np.int64), np.zeros(normals.size, dtype=np.int64)]
    return float(metric(ScoreBounds.exact(np.r_[anomalies, normals]), labels))


def _spread(drawn: FloatArray, level: float) -> tuple[float, float, float]:
    """Standard error and percentile interval of resampled values."""
    check_probability(level, "level")
    low, high = np.quantile(drawn, [(1.0 - level) / 2, (1.0 + level) / 2])
    return float(drawn.std(ddof=1)) if drawn.size > 1 else 0.0, float(low), float(high)
