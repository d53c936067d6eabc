"""The check that holds the toolkit together: certified <= attacked <= clean, wherever two of them meet.

A certificate bounds the true robust value from below and an attack bounds it from above, so a violation
is a bug in one of the two (or a failure of the certificate's confidence, at probability alpha). For the
false-positive rate the order is reversed. The attacked value of a smoothed score is an estimate of its bound:
there the order fails where the noise of the draws can't explain it (`diffad.estimated`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise, product
from typing import Any

import numpy as np

from certify.checks import InputError
from certify.metrics import auroc, average_precision, fpr_at_tpr
from certify.types import ScoreBounds, Side
from diffad.conditions import Condition, IntArray
from diffad.estimated import REMEDY, Judges, is_estimate
from diffad.outlier_sets import outlier_sets
from diffad.runs import Run, join_runs

TOLERANCE = 1e-12  # sums of equal terms in another order
ATTACKED: tuple[Side, ...] = ("in", "out", "both")
# metric -> (function of bounds, labels, side and unattacked bounds, +1 if high is good and -1 if low is)
METRICS: dict[str, tuple[Callable[..., Any], int]] = {
    "AUROC": (auroc, 1),
    "AP": (average_precision, 1),
    "FPR95": (fpr_at_tpr, -1),
}


class OrderError(InputError):
    """Certified <= attacked <= clean does not hold; commands print it in one line and exit with 1."""


@dataclass(frozen=True)
class OrderReport:
    """What `check_order` compared.

    `comparisons` counts pairs of numbers that were in order; `scores` attacked scores that a certificate
    speaks of, and `outside` how many of them lie outside their certified interval (each one a failed
    certificate, a bug, or the noise of an estimate). `explained` counts the pairs in which a certificate lies above
    an attack's estimate by no more than the noise of its draws.
    """

    comparisons: int
    scores: int
    outside: int
    explained: int = 0

    @property
    def sentence(self) -> str:
        """One line for people."""
        if self.comparisons == self.explained == 0:
            return "certified, attacked and clean results do not meet anywhere: there was nothing to compare"
        order = f"certified <= attacked <= clean holds in all {self.comparisons} comparisons"
        if self.explained:
            order = (
                order.replace("all ", "")
                + f", and in {self.explained} more within the noise of the attack's draws"
            )
        if self.scores == 0:
            return order
        return (
            f"{order}; {self.outside} of {self.scores} attacked scores lie outside their certified interval"
        )


def check_order(runs: Iterable[Run]) -> OrderReport:
    """Compare every certificate, attack and clean score of one detector, smoothing, sigma, norm and radius.

    Only images that both sides hold are compared. Under protocol `ood` each outlier set is compared by itself as well:
    the tables state means over sets, and the pooled images can hide a set that is out of order.
    Raises `OrderError` naming the first cell that is out of order; for a smoothed score, out of order by more than
    the draws that its attack kept can explain, and where none were kept at all.
    """
    runs = list(runs)
    comparisons = scores = outside = explained = 0
    joined = [
        (one, s) for one in join_runs(runs) for s in dict.fromkeys(c.subject.score for c in one.conditions)
    ]
    for run, subject in joined:
        own = [condition for condition in run.conditions if condition.subject.score == subject]
        judges = Judges.of([one.folder for one in runs], own)
        for part in (own, *_by_set(own, run.manifest["data"].get("options", {}))):
            comparisons += sum(_check_against_clean(part, condition) for condition in part)
            for pair in _pairs(part):
                in_order, within = _check_pair(part, *pair, judges)
                comparisons, explained = comparisons + in_order, explained + within
        for certified, attacked in _pairs(own):
            checked, escaped = count_outside(certified, attacked)
            scores, outside = scores + checked, outside + escaped
        _check_nested(own)
    return OrderReport(comparisons, scores, outside, explained)


def _by_set(own: list[Condition], options: Mapping[str, Any]) -> list[list[Condition]]:
    """The conditions on all normals and the anomalies of one outlier set, for each set; none under other protocols."""
    parts: dict[str, list[Condition]] = {}
    for condition in own:
        images = condition.images
        for name, keep in outlier_sets(options, images.labels, images.defects).items():
            parts.setdefault(name, []).append(condition.take(images.index[keep]))
    return list(parts.values())


def _check_nested(own: list[Condition]) -> None:
    """A larger ball cannot be proved better than a smaller one: bounds of one certificate widen with the radius."""
    levels: dict[tuple[Any, ...], list[Condition]] = {}
    for condition in own:
        if condition.condition == "certified":
            key = (condition.norm, condition.n, condition.alpha_kind, condition.alpha)
            levels.setdefault(key, []).append(condition)
    for certified in levels.values():
        for small, large in pairwise(sorted(certified, key=lambda condition: condition.radius)):
            if not np.array_equal(small.images.index, large.images.index):
                continue
            inside = (large.bounds.lower <= small.bounds.lower) & (large.bounds.upper >= small.bounds.upper)
            if not inside.all():
                raise OrderError(
                    f"{large.name}: {int((~inside).sum())} intervals are narrower than at radius {small.radius:g}; "
                    "rows of different certificates, or a bug"
                )


def _pairs(conditions: list[Condition]) -> Iterator[tuple[Condition, Condition]]:
    """Certificates and attacks of equal norm and radius."""
    certified = [c for c in conditions if c.condition == "certified"]
    attacked = [c for c in conditions if c.condition == "attack"]
    for one, other in product(certified, attacked):
        if one.norm == other.norm and math.isclose(one.radius, other.radius, rel_tol=1e-12, abs_tol=0.0):
            yield one, other


def _shared(*conditions: Condition) -> tuple[Condition, ...]:
    """The conditions on the images that all of them hold; empty when these are not of both classes."""
    index: IntArray = reduce(np.intersect1d, (condition.images.index for condition in conditions))
    labels = conditions[0].images.labels[np.isin(conditions[0].images.index, index)]
    if labels.size == 0 or labels.min() == labels.max():
        return ()
    taken = tuple(condition.take(index) for condition in conditions)
    if any(not np.array_equal(taken[0].images.labels, other.images.labels) for other in taken[1:]):
        raise OrderError(f"{conditions[0].name}: labels differ from those of {conditions[1].name}")
    return taken


def _check_against_clean(own: list[Condition], worse: Condition) -> int:
    """No certificate may beat clean scores from as many draws as its own or more, no attack those of its own draws.

    `certify` estimates clean scores from the draws of the certificate, an attack from those of its evaluation; by
    other draws a clean score may look a little worse than an attacked one, and by fewer than a certificate's.
    """
    checked = 0
    for clean in (c for c in own if c.condition == "clean" and worse.condition != "clean"):
        if pair := _shared(worse, clean):
            labels = pair[0].images.labels
            if worse.condition == "attack" and not _same_draws(*pair):
                continue
            few = worse.condition == "certified" and is_estimate(clean) and clean.n < worse.n
            for metric, (measure, sign) in METRICS.items():
                low = float(measure(pair[0].bounds, labels, "both"))
                high = float(measure(pair[1].bounds, labels, "clean"))
                if few and sign * (low - high) > TOLERANCE:
                    continue  # says more of the clean estimate, whose draws nobody kept, than of the certificate
                checked += _in_order(metric, sign, "both", (pair[0], low), (pair[1], high))
    return checked


def _same_draws(attacked: Condition, clean: Condition) -> bool:
    """Whether the clean ends of an attack are these clean scores: equal to the last digit for most images."""
    return bool(np.mean(attacked.unattacked().lower == clean.bounds.lower) > 0.5)


def _check_pair(
    own: list[Condition], certified: Condition, attacked: Condition, judges: Judges
) -> tuple[int, int]:
    """Certified <= attacked for every side; `in` and `out` where the certificate has bounds at radius 0.

    Returns how many metrics are in order, and how many out of it by no more than the noise of the attack's draws.
    """
    base = [c for c in own if c.condition == "certified" and c.radius == 0.0 and c.norm == certified.norm]
    base = [c for c in base if (c.n, c.alpha_kind) == (certified.n, certified.alpha_kind)][:1]
    shared = _shared(certified, attacked, *base)
    if not shared:
        return 0, 0
    proved, tried, labels = shared[0], shared[1], shared[0].images.labels
    at_zero: ScoreBounds | None = shared[2].bounds if base else None
    checked = explained = 0
    for side, (metric, (measure, sign)) in product(ATTACKED if base else ATTACKED[2:], METRICS.items()):
        low = float(measure(proved.bounds, labels, side, at_zero))
        high = float(measure(tried.bounds, labels, side, tried.unattacked()))
        out_of_order = sign * (low - high) > TOLERANCE
        best = judges.best_case(tried, at_zero) if out_of_order else None
        if best is not None and sign * (low - float(measure(best[0], labels, side, best[1]))) <= TOLERANCE:
            explained += 1
        else:
            checked += _in_order(metric, sign, side, (proved, low), (tried, high), known=best is not None)
    return checked, explained


def _in_order(
    metric: str,
    sign: int,
    side: Side,
    worse: tuple[Condition, float],
    better: tuple[Condition, float],
    *,
    known: bool = False,
) -> int:
    """1 if the first value is no better than the second; raises `OrderError` otherwise.

    `known` says that the noise of the draws is, and does not explain it.
    """
    if sign * (worse[1] - better[1]) <= TOLERANCE:
        return 1
    relation = "above" if sign > 0 else "below"
    raise OrderError(
        f"order violated, {metric} ({side}): {worse[0].name} gives {worse[1]:.6f}, {relation} the "
        f"{better[1]:.6f} of {better[0].name}{' beyond the noise of its draws' if known else ''}; a bug in the "
        f"certificate or in the attack{f', {REMEDY}' if is_estimate(better[0]) and not known else ''}"
    )


def count_outside(certified: Condition, attacked: Condition) -> tuple[int, int]:
    """How many attacked scores `certified` speaks of, and how many lie outside their certified interval."""
    index = np.intersect1d(certified.images.index, attacked.images.index)
    if index.size == 0:
        return 0, 0
    proved, tried = certified.take(index), attacked.take(index)
    normal = tried.images.labels == 0
    reached = np.where(normal, tried.bounds.upper, tried.bounds.lower)
    escaped = (reached < proved.bounds.lower) | (reached > proved.bounds.upper)
    return int(index.size), int(escaped.sum())
