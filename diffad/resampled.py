"""The paired bootstrap over test images that stands beside DeLong's intervals in every table of AUROCs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from certify.metrics import auroc, worst_case
from certify.resampling import resampled_mean_aurocs
from certify.types import FloatArray, ScoreBounds, Side
from certify.uncertainty import bootstrap_interval, bootstrap_test
from diffad.conditions import Condition, IntArray
from diffad.outlier_sets import Mask

RESAMPLES = 2000
SEED = 0  # one key for all tables, so that two detectors on the same images meet the same resamples
# Beyond so many pairs of images the two kinds of interval agree, and resampling takes minutes.
MOST_PAIRS, MOST_IMAGES = 4_000_000, 10_000


def resampled_interval(condition: Condition, side: Side, at_zero: ScoreBounds | None) -> list[float] | None:
    """Return the 95 % bootstrap interval of the AUROC of these ends, each class resampled by itself.

    None where it is no evidence: fewer than two images of a label, or the same value in every resample; and where it
    would cost too much (`MOST_PAIRS`, `MOST_IMAGES`).
    """
    labels = condition.images.labels
    if not _worth_it(labels):
        return None
    found = bootstrap_interval(auroc, condition.bounds, labels, side, at_zero, seed=SEED, resamples=RESAMPLES)
    return None if found.standard_error == 0.0 else [found.low, found.high]


def resampled_difference(first: Condition, other: Condition) -> list[float] | None:
    """Return the 95 % interval of the difference of two AUROCs, side `both`, the same images resampled for both.

    None as in `resampled_interval`.
    """
    labels = first.images.labels
    if not _worth_it(labels):
        return None
    found = bootstrap_test(auroc, first.bounds, other.bounds, labels, seed=SEED, resamples=RESAMPLES)
    return None if found.standard_error == 0.0 else [found.low, found.high]


def resampled_mean_interval(
    condition: Condition, sets: Mapping[str, Mask], side: Side, at_zero: ScoreBounds | None
) -> list[float] | None:
    """Return the 95 % bootstrap interval of the mean AUROC over outlier sets (`diffad.outlier_sets.outlier_sets`).

    The normals are resampled once for all sets, the anomalies of each set by themselves. None as in
    `resampled_interval`, and with fewer than two anomalies in a set.
    """
    return _interval(_mean_over_sets(condition, sets, side, at_zero))


def resampled_mean_difference(
    first: Condition, other: Condition, sets: Mapping[str, Mask]
) -> list[float] | None:
    """Return the 95 % interval of the difference of two means over outlier sets, side `both`, on the same resamples.

    None as in `resampled_mean_interval`.
    """
    one, two = (_mean_over_sets(condition, sets, "both", None) for condition in (first, other))
    return None if one is None or two is None else _interval(one - two)


def _mean_over_sets(
    condition: Condition, sets: Mapping[str, Mask], side: Side, at_zero: ScoreBounds | None
) -> FloatArray | None:
    """Return the mean AUROC in each resample; None where it is no evidence, or would cost too much."""
    labels = condition.images.labels
    owned = [keep[labels == 1] for keep in sets.values()]
    if not _worth_it(labels) or min(own.sum() for own in owned) < 2:
        return None
    anomalies, normals = worst_case(condition.bounds, labels, side, at_zero)
    return resampled_mean_aurocs([anomalies[own] for own in owned], normals, SEED, RESAMPLES)


def _interval(drawn: FloatArray | None) -> list[float] | None:
    if drawn is None or np.ptp(drawn) == 0.0:
        return None
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [float(low), float(high)]


def _worth_it(labels: IntArray) -> bool:
    anomalies, normals = int((labels == 1).sum()), int((labels == 0).sum())
    few = anomalies * normals <= MOST_PAIRS and anomalies + normals <= MOST_IMAGES
    return min(anomalies, normals) >= 2 and few
