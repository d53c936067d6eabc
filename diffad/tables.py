"""Tables derived from rows: AUROC, AP and FPR95 of every condition and side, and how they are printed.

`side` says who is attacked: `in` the normal images, `out` the anomalous ones, `both`, or nobody (`clean`).
A certified number is floored when printed (FPR: ceiled), so that no digit claims more than was proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from certify.checks import InputError
from certify.metrics import (
    auroc,
    average_precision,
    fpr_at_tpr,
    rate_interval,
    tpr_fpr_at_threshold,
)
from certify.text import ceil_text, floor_text
from certify.types import ScoreBounds, Side
from diffad.conditions import Condition, Subject
from diffad.runs import Run

Row = dict[str, Any]
NOTHING = "nothing certified"
MISSING = "-"
ATTACKED: tuple[Side, ...] = ("in", "out", "both")
HALF = 0.5  # what a constant score certifies at every radius, since ties count one half


def auroc_table(run: Run) -> list[Row]:
    """One row for each condition and side: the metrics with what they rest on, ready for JSON.

    Keys: the fields of `Subject`; condition, norm, radius, side, n, seed; alpha (one-sided level an image)
    and alpha_kind; normals, anomalies; auroc, ap, fpr95 (when certified: lower, lower and upper bound);
    infinite, the share of images whose attacked end has no bound; threshold, with tpr and fpr at it (None
    without one); `*_interval`, the 95 % Clopper-Pearson interval of a rate over the test images (fpr95: its
    threshold given).
    The sides `in` and `out` of a certificate need its bounds at radius 0 and are left out without them.
    """
    return [_row(run, condition, side) for condition in run.conditions for side in _sides(run, condition)]


def _sides(run: Run, condition: Condition) -> tuple[Side, ...]:
    if condition.condition == "clean":
        return ("clean",)
    return ATTACKED if _unattacked(run, condition) is not None else ("both",)


def _unattacked(run: Run, condition: Condition) -> ScoreBounds | None:
    """What `in` and `out` take for the images left alone; None for a certificate without radius 0."""
    if condition.condition != "certified":
        return condition.unattacked()
    for other in run.of(condition.subject, "certified", condition.norm):
        same = (other.n, other.alpha_kind) == (condition.n, condition.alpha_kind)
        if other.radius == 0.0 and same and np.array_equal(other.images.index, condition.images.index):
            return other.bounds
    return None


def _row(run: Run, condition: Condition, side: Side) -> Row:
    labels, threshold = condition.images.labels, run.threshold(condition.subject)
    given = (condition.bounds, labels, side, _unattacked(run, condition))
    normals, anomalies = int((labels == 0).sum()), int((labels == 1).sum())
    fpr95 = float(fpr_at_tpr(*given))
    tpr, fpr = (None, None)
    if threshold is not None:
        rates = tpr_fpr_at_threshold(condition.bounds, labels, threshold, side, given[3])
        tpr, fpr = float(rates[0]), float(rates[1])
    return {
        **condition.subject._asdict(),
        "condition": condition.condition,
        "norm": condition.norm,
        "radius": condition.radius,
        "side": side,
        "n": condition.n,
        "seed": condition.seed,
        "alpha": condition.alpha,
        "alpha_kind": condition.alpha_kind,
        "normals": normals,
        "anomalies": anomalies,
        "auroc": float(auroc(*given)),
        "ap": float(average_precision(*given)),
        "fpr95": fpr95,
        "fpr95_interval": _interval(fpr95, normals),
        "infinite": infinite_share(condition),
        "threshold": threshold,
        "tpr": tpr,
        "tpr_interval": _interval(tpr, anomalies),
        "fpr": fpr,
        "fpr_interval": _interval(fpr, normals),
    }


def _interval(rate: float | None, trials: int) -> list[float] | None:
    if rate is None:
        return None
    low, high = rate_interval(round(rate * trials), trials)
    return [float(low), float(high)]


def infinite_share(condition: Condition) -> float:
    """Share of images whose attacked end (upper of normal, lower of anomalous ones) is infinite."""
    ends = np.where(condition.images.labels == 0, condition.bounds.upper, -condition.bounds.lower)
    return float(np.isposinf(ends).mean())


def defect_table(run: Run) -> list[Row]:
    """Clean AUROC of every kind of defect against all normals, one row for each subject and kind."""
    rows = []
    for condition in run.conditions:
        if condition.condition != "clean":
            continue
        defects, labels = np.array(condition.images.defects), condition.images.labels
        for kind in sorted(set(defects[labels == 1])):
            keep = (labels == 0) | (defects == kind)
            scores = ScoreBounds(condition.bounds.lower[keep], condition.bounds.upper[keep])
            count = int((defects[labels == 1] == kind).sum())
            value = float(auroc(scores, labels[keep], "clean"))
            rows.append(
                {**condition.subject._asdict(), "defect": str(kind), "anomalies": count, "auroc": value}
            )
    return rows


def cell_text(row: Row | None, metric: str = "auroc", digits: int = 3) -> str:
    """One printed number: certified AUROC and AP floored, certified FPR ceiled, the others rounded.

    A certified AUROC that is .5 or less after flooring reads `nothing certified`.
    """
    if row is None or row[metric] is None:
        return MISSING
    value = float(row[metric])
    if row["condition"] != "certified":
        return f"{value:.{digits}f}"
    if metric.startswith("fpr"):
        return ceil_text(value, digits)
    if metric == "auroc" and value <= HALF:
        return NOTHING
    return floor_text(value, digits)


def radius_text(radius: float, norm: str) -> str:
    """A radius as people write it: Linf in 255ths where it is one, otherwise six digits."""
    steps = radius * 255
    whole = norm == "linf" and radius > 0 and abs(steps - round(steps)) < 1e-6
    return f"{round(steps)}/255" if whole else f"{radius:g}"


def total_alpha(row: Row) -> float | None:
    """Level of a whole certified cell by the union over its images; None where nothing is random."""
    return None if row["alpha"] is None else min(1.0, row["alpha"] * (row["normals"] + row["anomalies"]))


def confidence_text(row: Row) -> str:
    """What a certified row rests on: its draws and its level."""
    total = total_alpha(row)
    if total is None:
        return "certified without noise, by the Lipschitz constant of the score"
    if row["alpha_kind"] == "per_image":
        return (
            f"certified at n = {row['n']}, alpha = {row['alpha']:.3g} an image (the literature's convention)"
        )
    return f"certified at n = {row['n']}, alpha = {total:.3g} for all images of a cell together"


def find(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """The first row whose entries equal those given, or None."""
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def strongest(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """Like `find`, but of several levels and n the total level first, then the largest n."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return max(found, key=lambda row: (row["alpha_kind"] != "per_image", row["n"]), default=None)


def subject_of(row: Row) -> Subject:
    """The subject that a row speaks of, with `none` for the detector's own score."""
    return Subject(**{name: row[name] for name in Subject._fields}).score


def format_table(rows: Sequence[Row], digits: int = 3) -> str:
    """Plain text: for each subject and norm one line a radius; AUROC clean, certified and attacked."""
    if not rows:
        raise InputError("format_table: got no rows")
    blocks = []
    for subject in dict.fromkeys(subject_of(row) for row in rows):
        own = [row for row in rows if subject_of(row) == subject]
        clean = find(own, condition="clean")
        for norm in sorted({row["norm"] for row in own if row["norm"]}) or [""]:
            blocks.append(_block(subject, norm, clean, [row for row in own if row["norm"] == norm], digits))
    return "\n\n".join(blocks)


def _block(subject: Subject, norm: str, clean: Row | None, rows: list[Row], digits: int) -> str:
    """The lines of one subject; a kind of row that it lacks has no column."""
    columns = [column for kind in sorted({_kind(row) for row in rows}) for column in _columns(kind)]
    counted = clean or rows[0]
    title = f"{subject.dataset}  {subject.label}  {subject.resolution} x {subject.resolution}  "
    title += f"{counted['normals']} normal + {counted['anomalies']} anomalous  AUROC"
    certified = sorted((_kind(row), confidence_text(row)) for row in rows if row["condition"] == "certified")
    title += "".join(f"\n{text}" for text in dict.fromkeys(text for _, text in certified))
    lines = [[f"{norm} radius" if norm else "", "clean", *(header for header, _, _ in columns)]]
    for radius in sorted({row["radius"] for row in rows}) or [0.0]:
        line = [radius_text(radius, norm) if norm else "", cell_text(clean, "auroc", digits)]
        for _, kind, content in columns:
            own = [row for row in rows if _kind(row) == kind and row["radius"] == radius]
            if content == "infinite":
                line.append(ceil_text(own[0]["infinite"], 2) if own else MISSING)
            else:
                line.append(cell_text(find(own, side=content), "auroc", digits))
        lines.append(line)
    return title + "\n" + align(lines)


Kind = tuple[int, str, int]  # place of the kind in a table (see KINDS), alpha_kind, n
KINDS = ("clean", "certified", "certified per image", "attack")


def _kind(row: Row) -> Kind:
    per_image = " per image" if row["alpha_kind"] == "per_image" else ""
    return KINDS.index(row["condition"] + per_image), row["alpha_kind"], row["n"]


def _columns(kind: Kind) -> list[tuple[str, Kind, str]]:
    """(header, kind, side or `infinite`) of the columns of a kind; the per-image convention has one."""
    name = KINDS[kind[0]]
    if name == "clean":
        return []
    if name == "certified per image":
        return [("both, alpha an image", kind, "both")]
    first = "certified: in" if name == "certified" else "attacked: in"
    sides = [(first if side == "in" else side, kind, str(side)) for side in ATTACKED]
    return [*sides, ("infinite", kind, "infinite")] if name == "certified" else sides


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first ranged left, the others right, two spaces between."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    printed = []
    for line in lines:
        padded = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        padded[0] = line[0].ljust(widths[0])
        printed.append("  ".join(padded).rstrip())
    return "\n".join(printed)
