"""The leaderboard as Markdown: one table for each data set, a line for each detector and radius."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffad.leaderboard import words
from diffad.leaderboard.entries import Board, Entry, Leaderboard
from diffad.leaderboard.records import Record
from diffad.tables import ESTIMATED, MISSING

HEAD = [
    *("threat", "detector", "clean", "certified", "95 %", "attacked", "gap"),
    *("in: certified, attacked", "out: certified, attacked", "n, alpha", "attack", "checks", "records"),
]
RECORD = ["record", "content", "commit", "date", "commands"]
TEXT = {
    "threat",
    "detector",
    "attack",
    "checks",
    "records",
    "record",
    "commands",
}  # the columns that are ranged left


def leaderboard_markdown(board: Leaderboard) -> str:
    """Return the page."""
    parts = [
        f"# {words.TITLE}",
        "Written by `diffad leaderboard`; what a row means, and how to add one, is in its documentation. AUROC with "
        "normal and anomalous images attacked, `in`: normal images alone, `out`: anomalous ones alone. The truth lies "
        f"between certified and attacked; {ESTIMATED}.",
        words.READING,
        *(_board(one) for one in board.boards),
        "## Records",
        "The content is the start of the SHA-256 of manifest.json followed by images.parquet; a star behind a commit "
        "says that tracked files differed from it.",
        _table([RECORD, *map(_record, board.records)], TEXT),
        *_silent(board),
        f"{board.order.sentence}.",
    ]
    return "\n\n".join(parts) + "\n"


def _board(board: Board) -> str:
    lines = [HEAD]
    for entry in board.entries:
        if entry.side == "both":
            lines.append(_line(entry, {one.side: one for one in board.entries if _same(one, entry)}))
    return f"## {escaped(board.title)}\n\n{escaped(words.about(board))}.\n\n{_table(lines, TEXT)}"


def _same(one: Entry, other: Entry) -> bool:
    return (one.label, one.norm, one.radius) == (other.label, other.norm, other.radius)


def _line(entry: Entry, sides: dict[str, Entry]) -> list[str]:
    return [
        *(words.threat(entry.norm, entry.radius), entry.label, words.number(entry.clean)),
        *(words.number(entry.certified), words.spread(entry.certified), words.number(entry.attacked)),
        words.gap(entry),
        *(_pair(sides.get(side)) for side in ("in", "out")),
        *(words.confidence(entry.certified), words.attack(entry.attacked), words.checks(entry.attacked)),
        ", ".join(record.name for record in entry.records),
    ]


def _pair(entry: Entry | None) -> str:
    if entry is None:
        return MISSING
    return f"{words.number(entry.certified)}, {words.number(entry.attacked)}"


def _record(record: Record) -> list[str]:
    return [record.name, record.content, record.version or MISSING, record.finished[:10], record.commands]


def _silent(board: Leaderboard) -> list[str]:
    """The records that add no row, and why."""
    names = ", ".join(escaped(record.name) for record in board.silent)
    return [f"No radius above 0, and so no row: {names}."] if names else []


def _table(lines: Sequence[Sequence[str]], text: set[str]) -> str:
    rule = ["---" if name in text else "---:" for name in lines[0]]
    shown = [[escaped(cell) for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in (shown[0], rule, *shown[1:]))


def escaped(text: str) -> str:
    """Text that Markdown takes as it is: no markup, no link, no end of a cell or of a line."""
    plain = " ".join(text.split())
    return re.sub(r"([\\`*|\[\]])", r"\\\1", plain.replace("&", "&amp;").replace("<", "&lt;"))
