"""How tables are printed and searched; `diffad.metric_rows` derives their rows.

A certified number is floored when printed (FPR: ceiled), so that no digit claims more than was proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from certify.checks import InputError
from certify.text import ceil_text, floor_text, short_text
from diffad.conditions import Subject
from diffad.metric_rows import ATTACKED, CORRECTED, Row
from diffad.ranking import HALF

NOTHING = "nothing certified"
UNCONVERGED = "not converged"
MISSING = "-"
# An attacked number bounds the truth from above where the score is deterministic; noise lowers an AUROC.
ESTIMATED = "the attacked value of a smoothed score is an estimate from its draws"


def cell_text(row: Row | None, metric: str = "auroc", digits: int = 3) -> str:
    """One printed number: certified AUROC and AP floored, certified FPR ceiled, the others rounded.

    A certified AUROC that is .5 or less after flooring reads `nothing certified`. An attacked number whose attack
    failed a mandatory check reads `not converged` with the names of these checks: it says too little of the detector.
    """
    if row is None or row[metric] is None:
        return MISSING
    if row.get("failed_checks"):
        return f"{UNCONVERGED} ({', '.join(row['failed_checks'])})"
    value = float(row[metric])
    if row["condition"] != "certified":
        return f"{value:.{digits}f}"
    if metric.startswith("fpr"):
        return ceil_text(value, digits)
    if metric == "auroc" and value <= HALF:
        return NOTHING
    return floor_text(value, digits)


def radius_text(radius: float, norm: str) -> str:
    """A radius as people write it: Linf in 255ths where it is one, otherwise six digits, floored if more are cut."""
    steps = radius * 255
    whole = norm == "linf" and radius > 0 and abs(steps - round(steps)) < 1e-6
    return f"{round(steps)}/255" if whole else short_text(radius)


def total_alpha(row: Row) -> float | None:
    """Level of a whole certified cell; None where nothing is random.

    By the union over its images; `failures` and `population` take as total what each image's bound takes.
    """
    if row["alpha"] is None:
        return None
    images = 1 if row["alpha_kind"] in CORRECTED else row["normals"] + row["anomalies"]
    return min(1.0, float(row["alpha"]) * images)


# What --joint divides its level over: the cells of one row of detector, way, noise and percentile.
TOGETHER = "all cells of one smoothed detector together"
# What a cell of a joint table rests on, by its kind of alpha.
JOINTLY = {
    "total": "{:.3g} for all images of a cell together",
    "failures": "{:.3g} an image and for the number of wrong bounds of each statement",
    "population": "{:.3g} for each statement about further images like these",
}


def confidence_text(row: Row) -> str:
    """What a certified row rests on: its draws and its level."""
    total = total_alpha(row)
    if total is None:
        return "certified without noise, by the Lipschitz constant of the score"
    if row["alpha_kind"] == "per_image":
        return (
            f"certified at n = {row['n']}, alpha = {row['alpha']:.3g} an image (the literature's convention)"
        )
    if row.get("joint_alpha") is not None:
        table = f"alpha = {row['joint_alpha']:.3g} for {TOGETHER}"
        return f"certified at n = {row['n']}, {table} ({JOINTLY[row['alpha_kind']].format(total)})"
    if row["alpha_kind"] == "failures":
        return f"certified at n = {row['n']}, alpha = {total:.3g} an image and for the number of wrong bounds"
    if row["alpha_kind"] == "population":
        return f"certified at n = {row['n']}, alpha = {total:.3g} for further images like these (test set included)"
    return f"certified at n = {row['n']}, alpha = {total:.3g} for all images of a cell together"


def interval_text(interval: Sequence[float] | None, digits: int = 2) -> str:
    """A 95 % interval over the test images, rounded outwards: `[.91, .99]` with the leading zeros kept."""
    if interval is None:
        return MISSING
    return f"[{floor_text(interval[0], digits)}, {ceil_text(interval[1], digits)}]"


def find(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """The first row whose entries equal those given, or None."""
    return next((row for row in rows if all(row[key] == value for key, value in wanted.items())), None)


def strongest(rows: Iterable[Row], **wanted: Any) -> Row | None:
    """Like `find`, but of several levels and n the total level first, then the largest n, then the worst attack."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return max(found, key=strength, default=None)


def strength(row: Row) -> tuple[bool, int, float]:
    """What decides which of several rows of one cell speaks: its level, its draws, and how far an attack came."""
    reached = -float(row["auroc"]) if row["condition"] == "attack" else 0.0
    return row["alpha_kind"] != "per_image", row["n"], reached


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


def over_sets(row: Row) -> str:
    """Say of a row whose numbers are means over outlier sets that they are, and over which; empty for others."""
    names = row.get("auroc_sets", {})
    return f", mean over the outlier sets {', '.join(names)}" if names else ""


def _block(subject: Subject, norm: str, clean: Row | None, rows: list[Row], digits: int) -> str:
    """The lines of one subject; a kind of row that it lacks has no column."""
    columns = [column for kind in sorted({_kind(row) for row in rows}) for column in _columns(kind)]
    counted = clean or rows[0]
    title = f"{subject.dataset}  {subject.label}  {subject.resolution} x {subject.resolution}  "
    title += f"{counted['normals']} normal + {counted['anomalies']} anomalous  AUROC{over_sets(counted)}"
    certified = sorted((_kind(row), confidence_text(row)) for row in rows if row["condition"] == "certified")
    title += "".join(f"\n{text}" for text in dict.fromkeys(text for _, text in certified))
    if clean is not None:
        title += "\nin brackets: 95 % over the choice of test images, by DeLong and by bootstrap; without an attacker "
        title += f"{interval_text(clean['auroc_interval'])} and {interval_text(clean['auroc_bootstrap'])}"
    lines = [[f"{norm} radius" if norm else "", "clean", *(header for header, _, _ in columns)]]
    for radius in sorted({row["radius"] for row in rows}) or [0.0]:
        line = [radius_text(radius, norm) if norm else "", cell_text(clean, "auroc", digits)]
        for _, kind, content in columns:
            own = [row for row in rows if _kind(row) == kind and row["radius"] == radius]
            if content == "infinite":
                line.append(ceil_text(own[0]["infinite"], 2) if own else MISSING)
            elif content == "bootstrap":
                line.append(interval_text((find(own, side="both") or {}).get("auroc_bootstrap")))
            elif content == "interval":
                both = find(own, side="both")
                shown = both is not None and not both.get("failed_checks")
                line.append(interval_text(both["auroc_interval"]) if both and shown else MISSING)
            else:
                line.append(cell_text(find(own, side=content), "auroc", digits))
        lines.append(line)
    return title + "\n" + align(lines)


Kind = tuple[int, str, int, str]  # place of the kind in a table (see KINDS), alpha_kind, n, method
KINDS = ("clean", "certified", "certified per image", "attack")


def _kind(row: Row) -> Kind:
    per_image = " per image" if row["alpha_kind"] == "per_image" else ""
    return KINDS.index(row["condition"] + per_image), row["alpha_kind"], row["n"], row["method"]


def _columns(kind: Kind) -> list[tuple[str, Kind, str]]:
    """(header, kind, side or content) of the columns of a kind; the per-image convention has one."""
    name = KINDS[kind[0]]
    if name == "clean":
        return []
    if name == "certified per image":
        return [("both, alpha an image", kind, "both")]
    attacked = f"{kind[3]}: in" if kind[3] else "attacked: in"
    first = "certified: in" if name == "certified" else attacked
    sides = [(first if side == "in" else side, kind, str(side)) for side in ATTACKED]
    sides.append(("both, 95 %", kind, "interval"))
    if name == "attack":
        return sides
    return [*sides, ("bootstrap", kind, "bootstrap"), ("infinite", kind, "infinite")]


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first ranged left, the others right, two spaces between."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    printed = []
    for line in lines:
        padded = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        padded[0] = line[0].ljust(widths[0])
        printed.append("  ".join(padded).rstrip())
    return "\n".join(printed)
