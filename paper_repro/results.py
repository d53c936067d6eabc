"""RESULTS.md: every published table beside what is recorded here, written by `python -m paper_repro results`.

Nothing is typed: published values come from `expected.yaml`, ours from `results/`, verdicts from both. What contradicts
certified <= attacked <= clean is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from certify.checks import InputError
from certify.files import write_text
from paper_repro.papers import HERE, PAPERS, left_out
from paper_repro.published import advrad, atd, classifiers, cobra, zarnd
from paper_repro.published.table import Row, expected, summary

FILE = HERE / "RESULTS.md"
SOURCES = (advrad, zarnd, cobra, atd, classifiers)
RECORDED = {"advrad": "cpu", "zarnd": "gpu", "cobra": "cpu", "atd": "cpu"}
INTRODUCTION = """# What the papers published, and what is measured here

Written by `python -m paper_repro results` from `*/expected.yaml` and `*/results/`; a test holds it against them. AUROC,
unless a title says otherwise. No published value is a target to the decimal: data, networks and attacks of the small
presets differ, so a verdict is about a direction. Attacked values are upper bounds of the truth (of smoothed scores
estimates of such bounds), certified ones lower bounds. How each was run, and what else was found, is in the README
beside the results.
"""


def results() -> str:
    """Return RESULTS.md.

    Raises:
        InputError: where recorded rows contradict certified <= attacked <= clean.
    """
    found = [fault for paper, preset in RECORDED.items() for fault in faults(summary(paper, preset)["rows"])]
    if found:
        raise InputError(f"certified <= attacked <= clean does not hold: {'; '.join(found[:3])}")
    parts = [INTRODUCTION]
    parts += [table.markdown() for source in SOURCES for table in source.tables() if table.lines]
    parts += [not_reliable(), commands()]
    return "\n".join(parts)


def not_reliable() -> str:
    """Return what of the published figures contradicts itself or the released code."""
    lines = ["## Published figures that cannot be relied on", ""]
    for paper in PAPERS:
        lines += [f"- {paper}: {remark}" for remark in expected(paper).get("not_reliable", ())]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Return what each preset leaves out for want of the user's data or weights, with the command."""
    lines = ["## Not run without data or weights that you bring", ""]
    for paper, one in PAPERS.items():
        found = (left_out(paper, preset) for preset in one.presets)
        lines += [f"- `{words}`" for words in found if words is not None]
    return "\n".join(lines) + "\n"


def faults(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the rows, of one run each, that are attacked above clean or certified above attacked or clean.

    The order holds for one score: a run that was certified has the smoothed score as its clean one. Certified and
    attacked values are compared at one norm and radius. Images crafted against another score (condition `elsewhere`)
    may look better to this one than the clean ones, and are under no order.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        keys = ("run", "measure", "experiment", "variant", "set", "detector", "seed")
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    for (run, *_), own in groups.items():
        clean = max((row["auroc"] for row in own if condition(row) == "clean"), default=None)
        reached = {place(row): row["auroc"] for row in own if condition(row) == "attack"}
        for row in own:
            kind = condition(row)
            limits = [limit for limit in (clean,) if limit is not None and kind in ("attack", "certified")]
            if kind == "certified" and place(row) in reached:
                limits.append(reached[place(row)])
            if any(row["auroc"] > limit + 1e-9 for limit in limits):
                yield f"{run}: {kind} {row['side']} {row['auroc']:.4f} above {min(limits):.4f}"


def condition(row: Row) -> str:
    """Return clean, attack or certified; rows of ATD name the side alone."""
    found: str = row.get("condition") or ("clean" if row["side"] == "clean" else "attack")
    return found


def place(row: Row) -> tuple[Any, ...]:
    """Return what an attacked and a certified row have to share to be compared."""
    return row.get("norm"), row.get("radius"), row["side"]


def write(file: Path = FILE) -> None:
    """Write RESULTS.md."""
    write_text(file, results())
