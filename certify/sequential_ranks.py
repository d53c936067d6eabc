"""Order statistics that bound a smoothed percentile at every look at once.

The group-sequential counterpart of `certify.bounds.shifted_ranks`: bounds that may be looked at while drawing,
and from which drawing may stop at any look for any reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import ndtr, ndtri

from certify.checks import InputError, check_probability
from certify.sequential import group_sequential_plan


class Rate(NamedTuple):
    """A rate p0 and 1 - p0, each with its digits."""

    p0: float
    complement: float


def shifted_rates(percentile: float, shift: float) -> tuple[Rate, Rate]:
    """Return 1 - p_l and p_u, for p_l, p_u = Phi(Phi^-1(percentile) -/+ shift).

    They are what the rate of draws above a threshold has to exceed to certify that the smoothed score stays
    above it, and what the rate of draws at or below has to exceed for "at or below" (shift = r / sigma).
    """
    check_probability(percentile, "percentile")
    if not (math.isfinite(shift) and shift >= 0.0):
        raise InputError(f"shift: got {shift}, need a finite r / sigma of at least 0")
    centre = float(ndtri(percentile))
    # 1e-300: no number of draws tells it from 0
    above, below = (
        Rate(float(ndtr(point)), max(float(ndtr(-point)), 1e-300))
        for point in (shift - centre, shift + centre)
    )
    return above, below


def sequential_ranks(
    looks: Sequence[int], percentile: float, shift: float, alpha: float, *, spending_power: float = 0.4
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return at each look the ranks that bound a smoothed percentile under a shift of r / sigma.

    The sequential counterpart of `shifted_ranks`. With the first n_k draws sorted, z_(1) <= ..., the bounds
    lower_k = z_(lower rank) and upper_k = z_(upper rank) satisfy, with probability at least 1 - alpha each,
    lower_k <= h_{p_l} (resp. h_{p_u} <= upper_k) *at all looks together*, for every distribution, atoms
    included. So the largest lower_k so far is a bound of level alpha under any stopping rule. Ranks 0 and
    n_k + 1 stand for "none", a bound at -inf and +inf.

    Proof. Let h = h_q, q = p_l. Call a draw above h a success; its rate is 1 - F(h) <= 1 - q = p0, since F(h)
    >= q. The lower rank is n_k - b_k + 1, with b_k the boundary of the plan for p0. Then z_(n_k - b_k + 1) >
    h exactly if at least b_k of the first n_k draws are successes, which the plan allows at any look with
    probability at most alpha in all. Upper side, q = p_u: call a draw below h a success; its rate is F(h-) <=
    q = p0, and z_(b_k) < h exactly if there are at least b_k successes.
    """
    above, below = (
        group_sequential_plan(
            rate.p0, alpha, looks, spending_power=spending_power, futility=0.0, complement=rate.complement
        )
        for rate in shifted_rates(percentile, shift)
    )
    lower = tuple(n - b + 1 for n, b in zip(above.looks, above.boundaries, strict=True))
    return lower, below.boundaries
