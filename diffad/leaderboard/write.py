"""`diffad leaderboard FOLDER...`: the page over all run folders, in HTML and in Markdown."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certify.console import say
from certify.files import write_text
from diffad.leaderboard import words
from diffad.leaderboard.entries import Entry, Found, Leaderboard
from diffad.leaderboard.html import leaderboard_html
from diffad.leaderboard.join import build_leaderboard
from diffad.leaderboard.markdown import leaderboard_markdown
from diffad.leaderboard.records import read_records
from diffad.tables import align

NAME = "leaderboard"


def leaderboard_command(folders: Sequence[Path | str], output_dir: Path | str, *, json: bool = False) -> Path:
    """Write `leaderboard.html` and `leaderboard.md`, and print what is on them (or one JSON object).

    Returns the page's path. What is no run folder is named on stderr and left out. Raises `InputError` for a damaged
    run folder and for none at all, and `OrderError` where certified <= attacked <= clean does not hold.
    """
    output = Path(output_dir)
    records, left_out = read_records(folders, output)
    board = build_leaderboard(records)
    for sentence in left_out:
        say(f"left out: {sentence}")
    for record in board.silent:
        say(f"no row: {record.name} speaks of no radius above 0")
    write_text(output / f"{NAME}.html", leaderboard_html(board))
    write_text(output / f"{NAME}.md", leaderboard_markdown(board))
    print(jsonlib.dumps(content(board, left_out)) if json else f"{overview(board)}\n\n{board.order.sentence}")
    say(f"leaderboard: {output / NAME}.html")
    return output / f"{NAME}.html"


def overview(board: Leaderboard) -> str:
    """Plain text: a line for each data set."""
    lines = [["data set", "detectors and ways", "rows", "certified and attacked"]]
    for one in board.boards:
        detectors = {entry.label for entry in one.entries}
        both = sum(entry.gap is not None for entry in one.entries)
        lines.append([one.title, str(len(detectors)), str(len(one.entries)), str(both)])
    return align(lines)


def content(board: Leaderboard, left_out: Sequence[str]) -> dict[str, Any]:
    """The leaderboard as JSON: boards with their rows, records, and what was left out."""
    return {
        "boards": [
            {
                **{name: value for name, value in one.__dict__.items() if name != "entries"},
                "rows": [_row(entry) for entry in one.entries],
            }
            for one in board.boards
        ],
        "records": [
            {
                "name": record.name,
                "content": record.content,
                "commit": record.commit,
                "finished": record.finished,
            }
            for record in board.records
        ],
        "left_out": [*left_out, *(record.name for record in board.silent)],
        "order": board.order.sentence,
    }


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "label": entry.label,
        **entry.subject._asdict(),
        **{"norm": entry.norm, "radius": entry.radius, "side": entry.side},
        **{name: _value(getattr(entry, name)) for name in ("clean", "certified", "attacked")},
        "gap": entry.gap,
        "attack": words.attack(entry.attacked),
        "checks": words.checks(entry.attacked),
        "records": [record.name for record in entry.records],
    }


def _value(found: Found | None) -> float | None:
    return None if found is None else found.value
