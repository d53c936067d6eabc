"""Exact group-sequential tests of a success rate: look at the draws a few times, at one level in all.

The level is spent over looks fixed beforehand (Lan and DeMets, Biometrika 1983), and the boundary of each
look comes from the exact binomial law of the draws that no earlier look has rejected. Certificates draw until
such a test decides: successes are votes for a decision, or draws on one side of a quantile
(`certify.sequential_ranks`).

Rounding: every mass is a sum of non-negative terms, so its relative error stays below ROUNDING, by which it
is enlarged; mass that is cut off is charged to the level. Nothing is convolved by FFT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import binom

from certify.checks import InputError, check_level, check_rate
from certify.types import FloatArray

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

# Exceeds the relative error of scipy's binomial masses (below 1e-11 up to millions of draws) and of the sums below.
ROUNDING = 1e-9
# Share of a level that may be cut off the tails at one look.
TAIL = 1e-11


@dataclass(frozen=True)
class GroupSequentialPlan:
    """When to stop drawing, and with what decision, in a test of H0: success rate <= p0.

    Attributes:
        p0: the rate to be exceeded.
        alpha: level of the test over all looks.
        looks: numbers of draws at which it looks, rising.
        boundaries: successes at each look that reject H0; looks[k] + 1 where none can.
        spent: probability <= alpha of ever rejecting at p0, when futility is ignored.
        futility: failures at each look from which drawing stops without a rejection; looks[k] + 1 = never.
    """

    p0: float
    alpha: float
    looks: tuple[int, ...]
    boundaries: tuple[int, ...]
    spent: float
    futility: tuple[int, ...]

    def power(self, p: float) -> float:
        """Return the probability of a rejection at the success rate `p`, futility included."""
        return float(sum(self._walk(p)[0]))

    def expected_samples(self, p: float) -> float:
        """Return the mean number of draws at the success rate `p`."""
        return float(np.dot(self._walk(p)[1], np.diff(self.looks, prepend=0)))

    def _walk(self, p: float) -> tuple[list[float], list[float]]:
        """Return for each look the probability of rejecting there, and of still drawing on the way to it."""
        if not 0.0 <= p <= 1.0:
            raise InputError(f"p: got {p}, need a success rate in [0, 1]")
        rejecting, arriving = [], []
        state, fewest, drawn = np.ones(1), 0, 0
        for look, boundary, hopeless in zip(self.looks, self.boundaries, self.futility, strict=True):
            arriving.append(float(state.sum()))
            masses, first, _ = _binomial(look - drawn, 1.0 - p, TAIL**2)
            state, fewest, drawn = np.convolve(state, masses), fewest + first, look
            decided = max(0, look - boundary - fewest + 1)
            rejecting.append(float(state[:decided].sum()))
            state = state[decided : max(decided, hopeless - fewest)]
            fewest += decided
            if state.size == 0:
                break
        missing = [0.0] * (len(self.looks) - len(arriving))
        return rejecting + missing, arriving + missing


@dataclass(frozen=True)
class SequentialOutcome:
    """What a plan did: arrays (sequences,).

    Attributes:
        rejected: whether H0 was rejected.
        samples: draws used.
        look: index of the look that stopped.
    """

    rejected: BoolArray
    samples: IntArray
    look: IntArray


def group_sequential_plan(
    p0: float,
    alpha: float,
    looks: Sequence[int],
    *,
    spending_power: float = 0.4,
    futility: float = 0.01,
    complement: float | None = None,
) -> GroupSequentialPlan:
    """Return the exact group-sequential test of H0: success rate <= p0. Plans are cached.

    By look n the test has spent at most alpha * (n / N)^spending_power, N the last look; what a look leaves
    over is carried forward. The probability of a rejection grows with the rate (couple the draws), so the
    level at p0 holds for every smaller rate. Futility never raises the probability of a rejection, so it
    costs no alpha.

    Args:
        p0: the rate to be exceeded, in (0, 1).
        alpha: one-sided level over all looks, in (0, 0.5).
        looks: rising numbers of draws, fixed before the first draw.
        spending_power: positive; smaller spends earlier.
        futility: stop as well when the mirrored test rejects "rate >= p0" at this level, which costs at most
            as much power at any rate above p0; 0 stops only where no rejection is possible any more.
        complement: 1 - p0, where it is known to more digits than p0 near 1 can keep.

    Raises:
        InputError: for a value outside these ranges.
    """
    complement = check_rate(p0, complement)
    check_level(alpha)
    schedule = tuple(int(look) for look in looks)
    if not schedule or schedule[0] < 1 or any(b <= a for a, b in pairwise(schedule)):
        raise InputError(f"looks: got {list(schedule)}, need rising numbers of draws, the first at least 1")
    if not (math.isfinite(spending_power) and spending_power > 0.0):
        raise InputError(f"spending_power: got {spending_power}, need a finite value above 0")
    if not 0.0 <= futility < 0.5:
        raise InputError(f"futility: got {futility}, need a level in [0, 0.5); 0 keeps the whole power")
    return _plan(p0, complement, alpha, schedule, spending_power, futility)


def default_looks(
    p0: float,
    alpha: float,
    max_samples: int,
    count: int = 20,
    *,
    multiple: int = 1,
    complement: float | None = None,
) -> tuple[int, ...]:
    """Return about `count` looks in geometric steps from the fewest draws that can reject to `max_samples`.

    The fewest is ceil(ln alpha / ln p0). Looks are raised to multiples of `multiple` (the noise chunk, so
    that no draw is wasted), but never above `max_samples`, which is always the last look.

    Raises:
        InputError: if even `max_samples` successes in a row reject nothing.
    """
    complement = check_rate(p0, complement)
    check_level(alpha)
    if count < 1 or multiple < 1:
        raise InputError(f"count and multiple: got {count} and {multiple}, need at least 1 of each")
    fewest = fewest_draws(p0, alpha, complement=complement)
    if fewest > max_samples:
        raise InputError(f"max_samples: got {max_samples}, need at least {fewest} draws to exceed {p0:.6g}")
    steps = np.geomspace(max_samples, fewest, count).round().astype(np.int64)
    raised = np.minimum(-(-steps // multiple) * multiple, max_samples)
    return tuple(int(look) for look in np.unique(raised))


def fewest_draws(p0: float, alpha: float, *, complement: float | None = None) -> int:
    """Return the fewest successes in a row that reject H0: success rate <= p0: ceil(ln alpha / ln p0)."""
    complement = check_rate(p0, complement)
    check_level(alpha)
    # The quotient of two rounded logarithms may exceed an integer by an ulp.
    return math.ceil(math.log(alpha) / math.log1p(-complement) * (1.0 - 1e-14))


def run_plan(plan: GroupSequentialPlan, successes: Any) -> SequentialOutcome:
    """Apply a plan to sequences of draws.

    Args:
        plan: the plan.
        successes: integers (sequences, looks), successes among the first looks[k] draws.
    """
    counts, looks = np.asarray(successes), np.asarray(plan.looks)
    if not np.issubdtype(counts.dtype, np.integer) or counts.ndim != 2 or counts.shape[1] != looks.size:
        raise InputError(
            f"successes: got {counts.dtype} of shape {counts.shape}, need integers (sequences, {looks.size}), "
            "one count a look"
        )
    if (counts < 0).any() or (counts > looks).any():
        raise InputError("successes: a count is negative or above the number of draws of its look")
    rejects = counts >= np.asarray(plan.boundaries)
    stops = rejects | (looks - counts >= np.asarray(plan.futility))
    stops[:, -1] = True
    first = stops.argmax(axis=1)
    return SequentialOutcome(rejects[np.arange(len(first)), first], looks[first], first)


@lru_cache(maxsize=1024)
def _plan(
    p0: float, complement: float, alpha: float, looks: tuple[int, ...], power: float, futility: float
) -> GroupSequentialPlan:
    failures, spent = _spend(complement, alpha, looks, power)
    boundaries = tuple(n - most for n, most in zip(looks, failures, strict=True))
    # With more failures than the last look forgives no rejection is left: stopping there loses nothing.
    hopeless = [min(failures[-1], n) + 1 for n in looks]
    if futility > 0.0:
        successes, _ = _spend(p0, futility, looks, power)
        hopeless = [min(most, n - few) for most, n, few in zip(hopeless, looks, successes, strict=True)]
    return GroupSequentialPlan(p0, alpha, looks, boundaries, spent, tuple(hopeless))


def _spend(rate: float, level: float, looks: tuple[int, ...], power: float) -> tuple[list[int], float]:
    """Test H0: event rate >= `rate`: the largest counts that reject (-1 for none) and the level spent.

    `state` is the law of the number of events, from `fewest` up, on the draws that no look has rejected.
    """
    tail = level * TAIL
    state, fewest, drawn, spent = np.ones(1), 0, 0, 0.0
    counts = []
    for look in looks:
        masses, first, lost = _binomial(look - drawn, rate, tail)
        state, fewest, drawn = np.convolve(state, masses), fewest + first, look
        # The far end will hardly ever reject again: charge it, forget it.
        far = np.cumsum(state[::-1])
        cut = int(np.searchsorted(far, tail, "right"))
        spent += (lost + (float(far[cut - 1]) if cut else 0.0)) * (1.0 + ROUNDING)
        state = state[: state.size - cut]
        near = np.cumsum(state) * (1.0 + ROUNDING)
        rejected = int(np.searchsorted(near, level * (look / looks[-1]) ** power - spent, "right"))
        spent += float(near[rejected - 1]) if rejected else 0.0
        state, fewest = state[rejected:], fewest + rejected
        counts.append(fewest - 1)
    return counts, spent


def _binomial(n: int, rate: float, tail: float) -> tuple[FloatArray, int, float]:
    """Return the masses of Bin(n, rate) but for its tails, the count of the first, and what the tails hold."""
    low, high = (int(np.clip(np.nan_to_num(f(tail, n, rate)), 0, n)) for f in (binom.ppf, binom.isf))
    lost = float(binom.cdf(low - 1, n, rate) + binom.sf(high, n, rate))
    return np.asarray(binom.pmf(np.arange(low, high + 1), n, rate)), low, lost
