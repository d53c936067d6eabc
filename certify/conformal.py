"""A threshold whose false alarms are bounded under attack, from held-out normal images alone.

Robust split conformal prediction, in the form of Yan et al. (RSCP+, ICLR 2024) and Zargarbashi and Bojchevski
(BinCP, 2025): the threshold is an order statistic of the *upper bounds* U_j(r) of the calibration scores
instead of the scores themselves. An image is flagged if its score is strictly above the threshold.

The guarantee. Let a fresh normal image be exchangeable with the calibration images (`marginal`) or all of
them independent draws (`pac`), U(r) its own upper bound by the same procedure with fresh noise, never
computed, and tau the threshold. P(U(r) > tau) <= beta by its rank among exchangeable values, ties included.
The true smoothed score of any image within r of it exceeds U(r) with probability at most alpha, the level of
one upper bound. So

    P(an attack of at most r makes the smoothed score exceed tau) <= beta + alpha.

It is about the true smoothed score h_p. A decision from finitely many fresh draws adds its own error: one
that flags only where `predict_scores` does, at alpha_0, has false alarms at most beta + alpha + alpha_0.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from certify.bounds import order_ranks
from certify.checks import InputError, check_probability


def conformal_rank(images: int, beta: float, confidence: float | None = None) -> int:
    """Return which smallest of `images` calibration values is the threshold; images + 1 if there is none.

    Without `confidence` it is ceil((images + 1) (1 - beta)): P(U > tau) <= beta on average over calibration
    sets. With it, the smallest k with P(Bin(images, 1 - beta) <= k - 1) >= confidence, so that with
    probability at least `confidence` over the calibration set P(U > tau | calibration set) <= beta.
    """
    check_probability(beta, "beta")
    if images < 1:
        raise InputError(f"images: got {images}, need at least one held-out normal image")
    if confidence is not None:
        check_probability(confidence, "confidence")
        return order_ranks(images, 1.0 - beta, 1.0 - confidence)[1]
    return math.ceil((images + 1) * (1 - exact_level(beta)))


def exact_level(level: float) -> Fraction:
    """Return the decimal number that was meant by a float: 0.05 is 1/20, so that 100 * (1 - 0.05) is 95 and no more.

    A product of floats may end above or below a whole number, where the rank changes.
    """
    return Fraction(repr(float(level)))


def robust_conformal_threshold(upper: Any, beta: float, confidence: float | None = None) -> float:
    """Return the threshold whose false-alarm rate under attack is at most beta + alpha.

    Args:
        upper: (images,) upper bounds U_j(r) of held-out normal images, the `upper` of `ScoreBounds` at one
            radius, each at the one-sided level alpha of one image; radius 0 gives the threshold without an
            attack. +inf counts as such.
        beta: the conformal level, in (0, 1).
        confidence: None for the rate on average over calibration sets (marginal); else the probability, in
            (0, 1), with which this calibration set keeps it (PAC).

    Returns:
        The threshold; +inf, which flags nothing, where the images are too few or too many bounds are +inf.

    Raises:
        InputError: for bounds of another shape, NaN, or a level out of range.
    """
    values = np.asarray(upper, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"upper: got shape {values.shape}, need (images,), one upper bound an image")
    if np.isnan(values).any():
        raise InputError("upper: got NaN; an unknown upper bound is inf")
    rank = conformal_rank(values.size, beta, confidence)
    return float(np.sort(values)[rank - 1]) if rank <= values.size else math.inf
