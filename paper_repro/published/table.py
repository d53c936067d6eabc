"""A published table beside our rows, and what both are read from."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from certify import floor_text
from paper_repro.papers import HERE, command

Row = dict[str, Any]
HEADS = ("row", "published", "ours", "conditions of ours", "verdict")
ABSENT = "-"
SLACK = 0.01  # AUROC; that less apart counts as level


@dataclass(frozen=True)
class Line:
    """A row of a published table: the value there, ours, under what conditions, and a verdict in words."""

    name: str
    published: str
    ours: str = ABSENT
    conditions: str = ABSENT
    verdict: str = ABSENT


@dataclass(frozen=True)
class Table:
    """A published table, AUROC unless the title says otherwise."""

    title: str
    lines: tuple[Line, ...]

    def markdown(self) -> str:
        """Return the table with its title."""
        rows = [(one.name, one.published, one.ours, one.conditions, one.verdict) for one in self.lines]
        text = [f"### {self.title}", "", _row(HEADS), "|" + "---|" * len(HEADS), *map(_row, rows)]
        return "\n".join(text) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def expected(paper: str) -> dict[str, Any]:
    """Return what a paper published, in its own units."""
    found: dict[str, Any] = yaml.safe_load((HERE / paper / "expected.yaml").read_text(encoding="utf-8"))
    return found


def summary(paper: str, preset: str) -> dict[str, Any]:
    """Return what is recorded of a preset; empty where nothing is."""
    file = folder(paper, preset) / "summary.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"rows": []}
    return found


def folder(paper: str, preset: str) -> Path:
    """Return the folder of recorded results."""
    return HERE / paper / "results" / preset


def mean(rows: Iterable[Row], **where: Any) -> float | None:
    """Return the mean AUROC over the rows with these values; None where there is none."""
    found = [row["auroc"] for row in rows if all(row.get(key) == value for key, value in where.items())]
    return statistics.fmean(found) if found else None


def number(value: float | None) -> str:
    """Return an AUROC with three digits after the point."""
    return ABSENT if value is None else f"{value:.3f}"


def certified(value: float | None) -> str:
    """Return a certified value, floored: it is a lower bound."""
    return ABSENT if value is None else floor_text(value)


def percent(value: float | None) -> str:
    """Return an AUROC that was published in percent, in the same digits."""
    return ABSENT if value is None else f"{value / 100:.4g}"


def pair(clean: float | None, attacked: float | None) -> str:
    """Return clean / attacked."""
    return ABSENT if clean is None and attacked is None else f"{number(clean)} / {number(attacked)}"


def published_pair(row: Mapping[str, float], attacked: str = "attacked") -> str:
    """Return clean / attacked of a published row, in percent there."""
    return f"{percent(row['clean'])} / {percent(row[attacked])}"


def holds(condition: bool, words: str) -> str:
    """Return a verdict with what decides it."""
    return f"{'holds' if condition else '**does not hold**'}: {words}"


def not_run(paper: str, preset: str, words: str, needs: str) -> str:
    """Return the verdict of a row that nobody ran here: what it needs, and the command."""
    return f"not run, needs {needs}: `{command(paper, preset, words)}`"


def contradicts(row: Mapping[str, float], attacked: str = "attacked") -> str:
    """Return a remark on a published row whose attack made the detector better."""
    return "published attacked above clean, one of the two is wrong; " if row[attacked] > row["clean"] else ""
