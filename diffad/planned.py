"""The certified AUROC that a plan would reach, judged from fewer draws than it will spend.

A certificate takes an order statistic of n draws, whose rank follows from n, the level and the radius. With fewer
draws the *fraction* of that rank is taken: an estimate of what the plan would certify, and no certificate itself.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

from certify.bounds import alpha_per_image, shifted_ranks
from certify.metrics import auroc
from certify.types import FloatArray, ScoreBounds


def planned_auroc(
    draws: Float[np.ndarray, "images n"],
    labels: Int[np.ndarray, " images"],
    *,
    sigma: float,
    lipschitz: float,
    percentile: float,
    radii: tuple[float, ...],
    planned_n: int,
    alpha: float,
) -> tuple[float, tuple[float, ...]]:
    """Return the clean AUROC and, at each L2 radius, the AUROC (both sides) that `planned_n` draws would certify.

    `lipschitz` is the L of the split certificate, `alpha` the level of all images of a cell together.
    """
    ordered = np.sort(draws, axis=1)
    # The rounding keeps 0.07 * 100 at rank 7 whatever the last bit of the product.
    rank = max(1, math.ceil(round(percentile * ordered.shape[1], 9)))
    clean = float(auroc(ScoreBounds.exact(ordered[:, rank - 1]), labels))
    level = alpha_per_image(alpha, len(ordered))
    certified = [
        auroc(planned_bounds(ordered, radius, sigma, lipschitz, percentile, planned_n, level), labels)
        for radius in radii
    ]
    return clean, tuple(float(value) for value in certified)


def planned_bounds(
    ordered: FloatArray,
    radius: float,
    sigma: float,
    lipschitz: float,
    percentile: float,
    planned_n: int,
    level: float,
) -> ScoreBounds:
    """Return the bounds (images,) at the fractions of the planned ranks of draws (images, n), sorted."""
    low, high = shifted_ranks(planned_n, percentile, radius / sigma, level)
    lower, upper = np.full(len(ordered), -np.inf), np.full(len(ordered), np.inf)
    if low >= 1:
        lower = np.quantile(ordered, low / planned_n, axis=1, method="lower") - lipschitz * radius
    if high <= planned_n:
        upper = np.quantile(ordered, (high - 1) / planned_n, axis=1, method="higher") + lipschitz * radius
    return ScoreBounds(lower, upper)
