"""The threshold of a plan, from held-out normal images alone.

`quantile`   a quantile of their smoothed scores: a further normal image, scored in the same way and not attacked, is
             flagged with probability at most 1 - quantile.
`conformal`  the same rank among their certified *upper bounds* at `threshold_radius`: a further normal image is flagged
             with probability at most 1 - quantile + alpha_per_image, whatever an attack within that radius does to it,
             by its true smoothed score (`certify.conformal`). At radius 0 it promises that without an attack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from certify.certificate import certify_scores, percentile_scores
from certify.checks import InputError
from certify.conformal import exact_level, robust_conformal_threshold
from certify.smoothed_sum import SmoothedSum
from certify.smoothing import SmoothedDetector, threshold_rank
from certify.store import ScoreStore
from certify.sums import certify_sum
from certify.types import FloatArray
from diffad.plan import Plan


def calibrate(
    smoothed: SmoothedDetector, images: Tensor, plan: Plan, store: ScoreStore | None = None
) -> float:
    """Set the threshold of a smoothed detector from held-out normals (images, c, h, w), and return it."""
    if plan.threshold == "quantile":
        return smoothed.calibrate(images, plan.quantile, store=store)
    if smoothed.smoothing == "none":
        upper = smoothed.bounds(images, range(len(images)), [_radius(plan)]).upper[0]
        smoothed.threshold_ = conformal_threshold(upper, plan)
    else:
        draws = smoothed.noisy_scores(images, range(len(images)), "calibrate", store)
        smoothed.threshold_ = threshold_of_draws(draws, plan, smoothed.lipschitz)
    return smoothed.threshold_


def calibrate_sum(
    smoothed: SmoothedSum, images: Tensor, plan: Plan, stores: Sequence[ScoreStore | None]
) -> float:
    """Set the threshold of a sum over noise levels, and return it; see `calibrate`."""
    if plan.threshold == "quantile":
        return smoothed.calibrate(images, plan.quantile, stores=stores)
    draws = smoothed.noisy_scores(images, range(len(images)), "calibrate", stores)
    upper = certify_sum(draws, smoothed.terms, [_radius(plan)], plan.alpha_per_image).upper[0]
    smoothed.threshold_ = conformal_threshold(upper, plan)
    return smoothed.threshold_


def threshold_of_draws(draws: FloatArray, plan: Plan, lipschitz: float) -> float:
    """Return the threshold that draws (images, n) of held-out normals give; `lipschitz` is that of the certificate."""
    if plan.threshold == "quantile":
        return quantile_threshold(percentile_scores(draws, plan.percentile), plan)
    options: tuple[Any, ...] = (plan.sigma, [_radius(plan)], plan.alpha_per_image, lipschitz, plan.percentile)
    return conformal_threshold(certify_scores(draws, *options).upper[0], plan)


def quantile_threshold(scores: FloatArray, plan: Plan) -> float:
    """Return the threshold that scores (images,) of held-out normals give."""
    return float(np.sort(scores)[threshold_rank(len(scores), plan.quantile) - 1])


def conformal_threshold(upper: FloatArray, plan: Plan) -> float:
    """Return the threshold that upper bounds (images,) of held-out normals give.

    Raises:
        InputError: if they are too few for the quantile, or too many of them infinite: it would flag nothing.
    """
    threshold_rank(len(upper), plan.quantile)  # says how many normals are needed
    found = robust_conformal_threshold(upper, float(1 - exact_level(plan.quantile)))
    if not math.isfinite(found):
        raise InputError(
            f"--threshold conformal: {int(np.isinf(upper).sum())} of {len(upper)} held-out normals have no finite "
            f"upper bound at L2 {_radius(plan):g}, so it would flag nothing; raise --n or --sigma, or lower "
            "--threshold_radius"
        )
    return found


def _radius(plan: Plan) -> float:
    assert plan.threshold_radius is not None  # see Plan
    return plan.threshold_radius
