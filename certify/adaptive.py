"""Decide each image at one radius with as few draws as its decision needs.

A group-sequential test looks at the draws at numbers fixed beforehand (`certify.sequential`): a clear image is
certified, and a hopeless one given up, after a few dozen draws; only those near the boundary use all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from certify.certificate import DECISIONS, Decision
from certify.checks import InputError, check_choice, check_level, check_positive
from certify.noise import NOISE_CHUNK
from certify.sequential import (
    BoolArray,
    GroupSequentialPlan,
    IntArray,
    default_looks,
    fewest_draws,
    group_sequential_plan,
)
from certify.sequential_ranks import shifted_rates
from certify.types import FloatArray

Status: TypeAlias = Literal["certified", "not_certified", "futility", "budget"]


@runtime_checkable
class DrawSource(Protocol):
    """Noisy scores on demand, such as a `DrawPool`. Rows are positions in its images."""

    def extend(self, targets: Mapping[int, int], /) -> None:
        """Draw what is missing so that each row given has at least as many draws as given."""

    def draws(self, row: int, /) -> FloatArray:
        """Return the draws (n,) of a row, in draw order."""


@dataclass(frozen=True)
class Decisions:
    """The outcome of `certify_decisions`, one entry an image.

    Attributes:
        status: `certified`; `not_certified`, after all draws; `futility`, stopped early because certification
            had become impossible or unlikely; `budget`, where no outcome of `max_samples` draws could
            certify, so that nothing was drawn.
        samples: draws used.
        successes: votes for the decision among them.
        max_samples: the most that one image could use.
    """

    status: tuple[Status, ...]
    samples: IntArray
    successes: IntArray
    max_samples: int

    @property
    def certified(self) -> BoolArray:
        """Whether the decision of each image is certified."""
        return np.array([status == "certified" for status in self.status], dtype=np.bool_)

    @property
    def saving(self) -> float:
        """Share of a fixed budget of `max_samples` an image that was not spent, in [0, 1]."""
        return 1.0 - float(self.samples.sum()) / (self.max_samples * len(self.status))


def certify_decisions(
    pool: DrawSource,
    threshold: float,
    decisions: Sequence[Decision],
    *,
    sigma: float,
    radius: float,
    max_samples: int,
    alpha: float,
    lipschitz: float = 0.0,
    percentile: float = 0.5,
    looks: int = 20,
    futility: float = 0.01,
    multiple: int = NOISE_CHUNK,
) -> Decisions:
    """Certify one decision an image against all L2 perturbations up to `radius`.

    The decision "anomalous" (h_p > threshold) holds in the whole ball if the rate of draws z > threshold + L
    r exceeds 1 - p_l(r): then h_{p_l} > threshold + L r, and h_p(x') >= h_{p_l}(x) - L r (see
    `certify.certificate`). "normal" (h_p <= threshold) holds if the rate of z <= threshold - L r is at least
    p_u(r). Each is tested at level alpha over all looks; at the median and L = 0 this is Cohen's certificate
    with a stopping rule. A NaN is no vote.

    Args:
        pool: the draws of the images, row i belonging to decisions[i]. They must be independent of `threshold`
            and `decisions`.
        threshold: from held-out normal images.
        decisions: "anomalous" or "normal" for each image: the known label, or what a selection sample of its
            own suggests. Never chosen from these draws.
        sigma: standard deviation of the noise, in pixel units of [0, 1].
        radius: L2 radius >= 0 in the same units.
        max_samples: draws an image, at most: the last look.
        alpha: one-sided level of each image, in (0, 0.5).
        lipschitz: the L of the split certificate; 0 only if the score is a function of x + noise alone.
        percentile: p of the smoothed score, in (0, 1).
        looks: how often to look, about; they are those of `default_looks`.
        futility: see `group_sequential_plan`.
        multiple: looks are raised to multiples of it, best the draws that an image has in a forward batch.
            The looks depend on it, so keep it when the batch size is to change nothing.

    Raises:
        InputError: for a value outside these ranges.
    """
    check_positive(sigma, "sigma")
    check_level(alpha)
    _check_finite(threshold, "threshold", -math.inf)
    _check_finite(radius, "radius", 0.0)
    _check_finite(lipschitz, "lipschitz", 0.0)
    if max_samples < 1 or len(decisions) == 0:
        raise InputError(
            f"got max_samples {max_samples} and {len(decisions)} decisions, need at least 1 of each"
        )
    plans: dict[Decision, GroupSequentialPlan | None] = {}
    for decision, rate in zip(DECISIONS, shifted_rates(percentile, radius / sigma), strict=True):
        if fewest_draws(rate.p0, alpha, complement=rate.complement) > max_samples:
            plans[decision] = None
            continue
        schedule = default_looks(
            rate.p0, alpha, max_samples, looks, multiple=multiple, complement=rate.complement
        )
        plans[decision] = group_sequential_plan(
            rate.p0, alpha, schedule, futility=futility, complement=rate.complement
        )
    margin = lipschitz * radius
    for decision in decisions:
        check_choice(decision, DECISIONS, "decision")
    outcome = _Progress([plans[decision] for decision in decisions])
    while targets := outcome.targets():
        pool.extend(targets)
        for row, look in targets.items():
            outcome.see(row, int(votes(pool.draws(row)[:look], threshold, margin, decisions[row]).sum()))
    return Decisions(
        tuple(outcome.status), np.array(outcome.samples), np.array(outcome.successes), max_samples
    )


def votes(draws: FloatArray, threshold: float, margin: float, decision: Decision) -> BoolArray:
    """Tell which draws (n,) vote for a decision: on its side of the threshold by more than `margin` = L r.

    Rounded as the bounds of `certify_scores`, so that both give the same verdict on the same draws.
    """
    if draws.ndim != 1:
        raise InputError(f"draws: got shape {draws.shape}, need (n,): one score decides an image")
    if decision == "anomalous":
        return np.asarray(outwards(draws, np.float64(margin)) > threshold, dtype=np.bool_)
    return np.asarray(-outwards(-draws, np.float64(margin)) <= threshold, dtype=np.bool_)


def outwards(lower: FloatArray, margin: Any) -> FloatArray:
    """Return lower bounds less margin = L r (an array that broadcasts), each operation rounded down.

    Where the margin is 0 they stay as they are.
    """
    wide = np.where(margin > 0.0, np.nextafter(margin, np.inf), 0.0)
    return np.where(wide > 0.0, np.nextafter(lower - wide, -np.inf), lower)


class _Progress:
    """Where each image stands in its plan (None: beyond the budget)."""

    def __init__(self, plans: Sequence[GroupSequentialPlan | None]) -> None:
        self.plans = plans
        self.status: list[Status] = ["budget" if plan is None else "not_certified" for plan in plans]
        self.samples, self.successes = [0] * len(plans), [0] * len(plans)
        self._look = [0] * len(plans)
        self._open = [plan is not None for plan in plans]

    def targets(self) -> dict[int, int]:
        """Return the next look of every image that is still open."""
        return {
            row: plan.looks[self._look[row]]
            for row, plan in enumerate(self.plans)
            if plan is not None and self._open[row]
        }

    def see(self, row: int, successes: int) -> None:
        """Take note of the successes at the look that was due."""
        plan, look = self.plans[row], self._look[row]
        assert plan is not None
        last = look == len(plan.looks) - 1
        self.samples[row], self.successes[row] = plan.looks[look], successes
        if successes >= plan.boundaries[look]:
            self.status[row] = "certified"
        elif not last and plan.looks[look] - successes >= plan.futility[look]:
            self.status[row] = "futility"
        elif not last:
            self._look[row] += 1
            return
        self._open[row] = False


def _check_finite(value: float, name: str, least: float) -> None:
    if not (math.isfinite(value) and value >= least):
        raise InputError(
            f"{name}: got {value}, need a finite value"
            + (f" of at least {least:g}" if math.isfinite(least) else "")
        )
