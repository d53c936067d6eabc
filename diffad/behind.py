"""By how much one certified AUROC lies behind another of the same test images, with intervals over these images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from certify.uncertainty import delong_test
from diffad.conditions import Condition, Subject
from diffad.outlier_sets import auroc_over_sets, outlier_sets
from diffad.resampled import resampled_difference, resampled_mean_difference
from diffad.runs import Run

Difference = list[float]


def shown_certificate(run: Run, subject: Subject, radius: float) -> Condition | None:
    """Return the L2 certificate that a table shows: a whole cell's before the per-image one, then the largest n."""
    found = [
        c for c in run.conditions if (c.subject.score, c.condition, c.norm) == (subject, "certified", "l2")
    ]
    found = [condition for condition in found if condition.radius == radius]
    return max(found, key=lambda c: (c.alpha_kind != "per_image", c.n), default=None)


def behind(
    first: Condition | None, other: Condition | None, options: Mapping[str, Any]
) -> tuple[Difference | None, Difference | None]:
    """Return (difference with its interval, the bootstrap's interval) of two certificates, side `both`.

    The first is [value, low, high] with DeLong's paired 95 % interval; of means over outlier sets, for which that test
    is not made, with the bootstrap's. None where the images differ or say nothing: fewer than two of a label, or no
    variance (two perfect rows, or two where nothing is certified).

    Args:
        options: of the data, as in their manifest: under protocol `ood` the AUROC is a mean over sets.
    """
    if first is None or other is None or not np.array_equal(first.images.index, other.images.index):
        return None, None
    labels, defects = first.images.labels, first.images.defects
    if min((labels == 0).sum(), (labels == 1).sum()) < 2:
        return None, None
    if sets := outlier_sets(options, labels, defects):
        spread = resampled_mean_difference(first, other, sets)
        means = [auroc_over_sets(one.bounds, labels, defects, options)["mean"] for one in (first, other)]
        return (None, None) if spread is None else ([means[0] - means[1], *spread], spread)
    found = delong_test(first.bounds, other.bounds, labels)
    if found.method != "delong":
        return None, None
    return [found.value, found.low, found.high], resampled_difference(first, other)
