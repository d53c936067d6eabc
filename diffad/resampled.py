"""The paired bootstrap over test images that stands beside DeLong's intervals in every table of AUROCs."""

from __future__ import annotations

from certify.metrics import auroc
from certify.types import ScoreBounds, Side
from certify.uncertainty import bootstrap_interval, bootstrap_test
from diffad.conditions import Condition, IntArray

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


def _worth_it(labels: IntArray) -> bool:
    anomalies, normals = int((labels == 1).sum()), int((labels == 0).sum())
    few = anomalies * normals <= MOST_PAIRS and anomalies + normals <= MOST_IMAGES
    return min(anomalies, normals) >= 2 and few
