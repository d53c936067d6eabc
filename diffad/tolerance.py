"""How far scores that are computed again may lie from the recorded ones, and why the difference cannot matter.

Another processor, or another build of PyTorch, rounds otherwise: the scores of a float32 network differ by about 1e-6
of their size. But a share of the size is no measure of what a score says. That of 10000 + x may hold all it knows in
changes of 1e-6, so that whoever moves its draws by less than that makes any AUROC of it.

So the difference seen is bounded twice. It is at most TOLERANCE of the score's size, or it is no rounding. And the
tables are derived once more with every bound and threshold moved by as much as was seen, against the detector: no
metric may change by RESOLUTION, the last digit that tables print. Then all that can have been won by it is less than
that. Scores that are equal bit for bit need neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from certify.types import FloatArray, ScoreBounds
from diffad.claims import Claim
from diffad.conditions import Condition
from diffad.metric_rows import Row, auroc_table
from diffad.plan import Plan
from diffad.runs import Run

TOLERANCE = 1e-5  # relative
RESOLUTION = 1e-3  # of AUROC and rates
METRICS = ("auroc", "ap", "fpr95", "tpr", "fpr")


def relative_gap(stored: Any, again: Any, reach: float = 0.0) -> FloatArray:
    """Return |again - stored| / (|stored| + reach) of each entry: 0 where they are equal or both NaN.

    `reach` is what was added to or taken from a score to give a bound, L r, and says nothing of its size. It is
    infinite where one of the two is no number, or infinite, and the other is not that.
    """
    old, new = np.asarray(stored, dtype=np.float64), np.asarray(again, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = np.abs(new - old) / (np.abs(old) + reach)
    same = (old == new) | (np.isnan(old) & np.isnan(new))
    return np.asarray(np.where(same, 0.0, np.where(np.isfinite(gap), gap, np.inf)), dtype=np.float64)


def agreement(gap: float) -> str:
    """Return how closely what was computed again agrees, with a relative gap that does not matter."""
    if gap == 0.0:
        return "equal bit for bit"
    return f"equal within {gap:.1g} relative, not bit for bit, which moves no metric by {RESOLUTION:g}"


def what_it_moves(gap: float, claim: Claim, run: Run, lipschitz: float) -> str | None:
    """Return which metric a relative gap of all scores may have moved, and how far, or None if it cannot matter.

    Args:
        gap: as seen, at most TOLERANCE.
        claim: what is checked.
        run: its manifest is needed for the tables.
        lipschitz: the constant L of its certificate: a bound lies L r from a score.
    """
    if gap == 0.0:
        return None
    told = _table([condition for condition, _ in claim.rows], run)
    for turn in (1.0, -1.0):  # a higher threshold costs hits, a lower one false alarms
        other = [_moved(condition, plan, gap, lipschitz, turn) for condition, plan in claim.rows]
        for row, changed in zip(told, _table(other, run), strict=True):
            for name, before, after in _metrics(row, changed):
                if abs(after - before) >= RESOLUTION:
                    return (
                        f"differs by {gap:.1g} relative, and so small a difference takes {name} "
                        f"({row['condition']}, {row['side']}, radius {row['radius']:g}) from {before:.3f} to "
                        f"{after:.3f}: it cannot be told from a change that was made"
                    )
    return None


def _table(conditions: list[Condition], run: Run) -> list[Row]:
    return auroc_table(Run(run.folder, run.manifest, tuple(conditions)), bootstrap=False)


def _metrics(row: Row, other: Row) -> Iterator[tuple[str, float, float]]:
    """Yield the name and both values of each metric, those of single outlier sets included."""
    for name in METRICS:
        if row[name] is not None:
            yield name, row[name], other[name]
    for name, value in row.get("auroc_sets", {}).items():
        yield f"auroc of {name}", value, other["auroc_sets"][name]


def _moved(condition: Condition, plan: Plan, gap: float, lipschitz: float, turn: float) -> Condition:
    """Return normals with higher and anomalies with lower ends, and the threshold higher (`turn` 1) or lower (-1).

    A score s that moves by gap |s| moves an end s ± L r by no more than gap (|end| + L r). An infinite end stays.
    """
    away, reach = np.where(condition.images.labels == 1, -gap, gap), lipschitz * condition.radius
    ends = (condition.bounds.lower, condition.bounds.upper)
    size = [np.where(np.isfinite(end), np.abs(end) + reach, 0.0) for end in ends]
    bounds = ScoreBounds(*(end + away * own for end, own in zip(ends, size, strict=True)))
    threshold = condition.threshold
    if threshold is not None:
        threshold += turn * gap * (abs(threshold) + lipschitz * (plan.threshold_radius or 0.0))
    return replace(condition, bounds=bounds, threshold=threshold)
