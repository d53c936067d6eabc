"""What a leaderboard shows: entries, each one detector under one threat, on boards, each one set of test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from diffad.conditions import Subject
from diffad.leaderboard.records import Record
from diffad.metric_rows import ATTACKED, Row
from diffad.order import TOLERANCE, OrderError, OrderReport, check_order
from diffad.runs import Run
from diffad.tables import subject_of

SIDES = tuple(reversed(ATTACKED))  # both first: the other two are parts of that threat


@dataclass(frozen=True)
class Found:
    """A number: the row of metrics that holds it (`diffad.metric_rows`), and where it is recorded.

    `clean` is, for an attack, the row of the ends that it left alone. A random score is estimated anew by every
    command, and clean and attacked values are in order by the same draws only.
    """

    row: Row
    record: Record
    clean: Row | None = None

    @property
    def value(self) -> float:
        """The AUROC."""
        return float(self.row["auroc"])


@dataclass(frozen=True)
class Entry:
    """One detector under one threat: AUROC clean, certified and attacked, None where nobody measured it.

    `label` names the subject on its board; `side` says who is attacked, `radius` how far, in `norm` and in [0, 1]
    pixel units.
    """

    label: str
    subject: Subject
    norm: str
    radius: float
    side: str
    clean: Found | None
    certified: Found | None
    attacked: Found | None

    @property
    def gap(self) -> float | None:
        """Attacked minus certified AUROC, what nobody knows yet.

        None without both, if the attack failed a mandatory check, and if it was judged by so few draws that its
        estimate lies below what is certified: then it says too little.
        """
        if self.certified is None or self.attacked is None or self.attacked.row.get("failed_checks"):
            return None
        found = self.attacked.value - self.certified.value
        return None if found < -TOLERANCE else found

    @property
    def records(self) -> list[Record]:
        """The folders behind the numbers, each once, that of the certificate first."""
        found = (self.certified, self.attacked, self.clean)
        return list({one.record.name: one.record for one in found if one is not None}.values())


@dataclass(frozen=True)
class Board:
    """The entries on one set of test images, by norm, side, radius and certified AUROC, the best first.

    `sets` names the outlier sets if every AUROC is the mean over them.
    """

    name: str
    resolution: int
    fingerprint: str
    normals: int
    anomalies: int
    sets: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """Data set, resolution and number of images in a line."""
        size = f"{self.resolution} x {self.resolution}"
        return f"{self.name}, {size}, {self.normals} + {self.anomalies} images"


@dataclass(frozen=True)
class Leaderboard:
    """All boards, the records behind them, those that speak of no threat, and what was compared."""

    boards: tuple[Board, ...]
    records: tuple[Record, ...]
    silent: tuple[Record, ...]
    order: OrderReport


def check_entry(entry: Entry) -> None:
    """Raise `OrderError`, naming the folders, unless certified <= attacked <= clean as far as they are known.

    An estimate that lies below a certificate by no more than the noise of its draws is let pass, as by `check_order`.
    """
    named = {"certified": entry.certified, "attacked": entry.attacked, "clean": entry.clean}
    known = [(name, one) for name, one in named.items() if one is not None]
    for (low, worse), (high, better) in pairwise(known):
        if worse.value > better.value + TOLERANCE and not _explained(worse, better):
            raise OrderError(
                f"order violated, AUROC ({entry.side}) of {entry.subject.dataset}, {entry.label}, {entry.norm} "
                f"{entry.radius:g}: {low} {worse.value:.6f} in {worse.record.run.folder} is above {high} "
                f"{better.value:.6f} in {better.record.run.folder}; a bug in one of the two"
            )


def _explained(certified: Found, other: Found) -> bool:
    """Whether a certificate lies above another number by no more than the noise of that number's draws."""
    row, few = other.row, other.row["n"] < certified.row["n"]
    if certified.row["condition"] != "certified" or row["n"] == 0:
        return False
    if row["condition"] == "clean":
        return few and row["smoothing"] not in ("", "none")
    try:
        return check_order([_behind(certified), _behind(other)]).explained > 0
    except OrderError:
        return False


def _behind(found: Found) -> Run:
    """The conditions that a number comes from, with the certificate of radius 0 beside that of the threat."""
    names = ("condition", "norm", "n", "alpha_kind", "method")
    kept = tuple(
        one
        for one in found.record.run.conditions
        if one.subject.score == subject_of(found.row)
        and all(getattr(one, name) == found.row[name] for name in names)
        and one.radius in (0.0, found.row["radius"])
    )
    return replace(found.record.run, conditions=kept)


def ranked(detectors: Sequence[Sequence[Entry]]) -> tuple[Entry, ...]:
    """The entries of the detectors of a board in its order, two under one label told apart by their folders."""
    entries = [entry for own in detectors for entry in own]
    counts = Counter((entry.label, entry.norm, entry.radius, entry.side) for entry in entries)
    alike = {label for (label, *_), count in counts.items() if count > 1}
    named = [
        replace(entry, label=f"{entry.label} [{_folder(own)}]") if entry.label in alike else entry
        for own in detectors
        for entry in own
    ]
    return tuple(sorted(named, key=_rank))


def _folder(own: Sequence[Entry]) -> str:
    """One folder for all entries of a detector: of its first certificate, else of its first entry."""
    return next((one for one in own if one.certified is not None), own[0]).records[0].name


def _rank(entry: Entry) -> tuple[Any, ...]:
    values = [float("inf") if one is None else -one.value for one in (entry.certified, entry.attacked)]
    return entry.norm, SIDES.index(entry.side), entry.radius, *values, entry.label
