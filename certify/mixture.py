"""Anytime-valid tests of a success rate: look after every draw, and stop whenever you like.

A mixture of likelihood ratios is a non-negative supermartingale under the null hypothesis, so the probability
that it ever reaches 1 / alpha is at most alpha (Ville 1939; Robbins, Annals of Mathematical Statistics 1970).
The test against one rate p0 mixes over a Beta(a, b) prior cut to (p0, 1]; the confidence sequence mixes over
the whole prior and inverts the test at every rate at once. With a = b = 1/2 its wealth is that of the
bettor of Krichevsky and Trofimov (1981). Where the largest number of draws is known, the group-sequential
test of `certify.sequential` has more power near p0.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from scipy.special import betainc, betaln, ndtri, xlog1py, xlogy

from certify.checks import InputError, check_positive, check_probability, check_rate
from certify.types import FloatArray

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

# Log wealth given up at a boundary; exceeds its rounding error up to some ten million draws.
LOG_SLACK = 1e-7
# SciPy loses digits of smaller masses (4e-3 of one at 1e-290); they are rounded down to 0.
TINY = 1e-250
# Halvings that take an interval of length 1 down to neighbouring floats, for rates above 1e-20.
HALVINGS = 120


def mixture_log_wealth(
    successes: Any, n: Any, p0: float, a: float = 0.5, b: float = 0.5, *, complement: float | None = None
) -> FloatArray:
    """Return the log wealth of the truncated-Beta mixture test of H0: success rate <= p0.

    ln M = ln of the mean, over p ~ Beta(a, b) given p > p0, of (p / p0)^S ((1 - p) / (1 - p0))^(n - S).
    At a rate <= p0 M is a supermartingale that starts at 1, so "reject once M >= 1 / alpha" has level alpha
    under any stopping rule.

    Args:
        successes: integer counts S, any shape that broadcasts with `n`.
        n: numbers of draws.
        p0: the rate to be exceeded, in (0, 1).
        a: first parameter of the prior, positive.
        b: second parameter of the prior, positive.
        complement: 1 - p0, where it is known to more digits than p0 near 1 can keep.

    Returns:
        float64 of the broadcast shape; -inf where the mass that the posterior Beta(S + a, n - S + b) has above p0
        is too small for a float, which is far below any boundary.
    """
    counts, trials = _check_counts(successes, n)
    check_positive(a, "a")
    check_positive(b, "b")
    rest = check_rate(p0, complement)
    failures = trials - counts
    # betainc(b, a, 1 - p0) is the prior's mass above p0, without cancellation where p0 is near 1.
    prior, posterior = float(betainc(b, a, rest)), betainc(failures + b, counts + a, rest)
    with np.errstate(divide="ignore"):
        above = np.log(np.where(posterior > TINY, posterior, 0.0)) - math.log(prior)
    wealth = betaln(counts + a, failures + b) - betaln(a, b) + above
    return np.asarray(wealth - counts * math.log1p(-rest) - failures * math.log(rest), dtype=np.float64)


def mixture_boundary(
    n: Any, p0: float, alpha: float, a: float = 0.5, b: float = 0.5, *, complement: float | None = None
) -> IntArray:
    """Return for each number of draws the fewest successes at which the mixture test rejects, n + 1 if none does.

    The wealth grows with every failure turned into a success, since p / p0 >= 1 >= (1 - p) / (1 - p0) over
    the whole cut prior; so a bisection over the counts finds it. Arguments as in `mixture_log_wealth`.
    """
    check_probability(alpha, "alpha")
    trials = np.asarray(n)
    needed = LOG_SLACK - math.log(alpha)
    low, high = np.full(trials.shape, -1, dtype=np.int64), np.asarray(trials + 1, dtype=np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        rejects = (
            mixture_log_wealth(np.clip(middle, 0, trials), trials, p0, a, b, complement=complement) >= needed
        )
        low, high = np.where(rejects, low, middle), np.where(rejects, middle, high)
    return high


def confidence_sequence_lower(
    successes: Any, n: Any, alpha: float, a: float = 0.5, b: float = 0.5
) -> FloatArray:
    """Return a lower confidence bound of a success rate that holds at all numbers of draws together.

    With probability at least 1 - alpha, bound_n <= the rate for every n: at any stopping time, and so for the
    largest bound so far. It is the smaller root p of M_n(p) = 1 / alpha, M_n(p) the mean of the likelihood
    ratio against p over a Beta(a, b) prior, which is convex in p. 0 without a success, and rounded down.

    Args:
        successes: integer counts, any shape that broadcasts with `n`.
        n: numbers of draws.
        alpha: one-sided level, in (0, 1).
        a: first parameter of the prior, positive.
        b: second parameter of the prior, positive.
    """
    counts, trials = _check_counts(successes, n)
    check_probability(alpha, "alpha")
    check_positive(a, "a")
    check_positive(b, "b")
    failures = trials - counts
    needed = LOG_SLACK - math.log(alpha) - (betaln(counts + a, failures + b) - betaln(a, b))
    low, high = np.zeros(counts.shape), counts / trials
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        excluded = -xlogy(counts, middle) - xlog1py(failures, -middle) >= needed
        low, high = np.where(excluded, middle, low), np.where(excluded, high, middle)
    return np.where(counts > 0, low, 0.0)


def confidence_sequence_radius(successes: Any, n: Any, sigma: float, alpha: float) -> FloatArray:
    """Return the radius sigma * Phi^-1(lower bound) certified for the median at any stopping time, or 0.0.

    `successes` votes of `n` draws; one event of probability 1 - alpha covers all n and all smaller radii. In
    the units of `sigma`.
    """
    check_positive(sigma, "sigma")
    lower = confidence_sequence_lower(successes, n, alpha)
    return np.asarray(np.maximum(sigma * ndtri(lower), 0.0) * (1.0 - 1e-12), dtype=np.float64)


def _check_counts(successes: Any, n: Any) -> tuple[FloatArray, FloatArray]:
    counts, trials = np.broadcast_arrays(np.asarray(successes), np.asarray(n))
    for name, values in (("successes", counts), ("n", trials)):
        if not np.issubdtype(values.dtype, np.integer):
            raise InputError(f"{name}: got {values.dtype}, need integer counts")
    if (trials < 1).any() or (counts < 0).any() or (counts > trials).any():
        raise InputError("successes: need 0 <= successes <= n and n >= 1 everywhere")
    return counts.astype(np.float64), trials.astype(np.float64)
