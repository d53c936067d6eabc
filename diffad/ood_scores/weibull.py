"""The two-parameter Weibull distribution of the largest distances, by maximum likelihood."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from certify.checks import InputError
from certify.types import FloatArray

TRANSLATION = (
    10_000.0  # added by LibMR (Scheirer et al., TPAMI 2011) to values that start at 0; kept to compare
)
LEAST_TAIL = 3


def fit_tail(values: FloatArray, tail_size: int) -> tuple[float, float, float]:
    """Return (shape, log scale, least value) of the `tail_size` largest values, as OpenMax fits them.

    The tail is moved to begin at `TRANSLATION`, as LibMR does; the shape solves the likelihood equation.
    Raises InputError for a tail of fewer than 3 values, or of one value repeated.
    """
    tail = np.sort(np.asarray(values, dtype=np.float64))[-tail_size:]
    if len(tail) < LEAST_TAIL or not tail[-1] > tail[0]:
        raise InputError(
            f"weibull: got a tail of {len(tail)} values, {len(np.unique(tail))} of them different; need at least "
            f"{LEAST_TAIL} that are not all equal"
        )
    least = float(tail[0])
    shape, log_scale = fit_weibull(tail - least + TRANSLATION)
    return shape, log_scale, least


def fit_weibull(values: FloatArray) -> tuple[float, float]:
    """Return the shape c and the log of the scale of the likeliest Weibull law of positive values, at location 0.

    Its likelihood equation, 1 / c = sum v^c log v / sum v^c - mean log v, has one root (log v is not constant). It is
    solved for s = c times the standard deviation of log v, which lies near 1 whatever the unit.
    """
    logs = np.log(values)
    top = float(logs.max())
    spread = float(logs.std())
    centred = (logs - top) / spread

    def excess(s: float) -> float:
        weights = np.exp(s * centred)
        return float((weights * centred).sum() / weights.sum() - centred.mean() - 1.0 / s)

    high = 1.0
    while excess(high) < 0.0:
        high *= 2.0
    low = high
    while excess(low) > 0.0:
        low /= 2.0
    scaled = float(brentq(excess, low, high, xtol=1e-14, rtol=1e-14)) if low < high else high
    shape = scaled / spread
    log_scale = top + float(np.log(np.mean(np.exp(scaled * centred)))) / shape
    return shape, log_scale
