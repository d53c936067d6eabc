"""The leaderboard as one HTML page: a table for each data set, sorted and filtered in the browser."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from diffad import page
from diffad.leaderboard import words
from diffad.leaderboard.browser import SCRIPT, STYLE
from diffad.leaderboard.entries import SIDES, Board, Entry, Found, Leaderboard
from diffad.leaderboard.ranges import ranges_html
from diffad.leaderboard.records import Record
from diffad.results import MANIFEST
from diffad.tables import ESTIMATED, MISSING, NOTHING, UNCONVERGED

# Heads of the columns, and how each is sorted.
COLUMNS = {
    **{
        "detector": "text",
        "clean": "number",
        "certified ≥": "number",
        "attacked ≤": "number",
        "gap": "number",
    },
    **{"n, alpha": "number", "attack": "text", "checks": "text", "records": "text"},
}
RANKED = "certified ≥"  # the column by which the rows of a threat are in order


def leaderboard_html(board: Leaderboard) -> str:
    """Return the page: nothing is loaded from elsewhere, and without JavaScript it is a page of plain tables."""
    anchors = {record.name: f"r{number}" for number, record in enumerate(board.records, 1)}
    names = _anchors(board.boards)
    sections = [
        ("", _introduction() + _filters(board.boards)),
        *(("", _board(one, name, anchors)) for one, name in zip(board.boards, names, strict=True)),
        ("Records", _records(board, anchors)),
        ("Check", page.paragraph(f"{board.order.sentence.replace('<=', '≤')}.")),
    ]
    detectors = {entry.subject.detector for one in board.boards for entry in one.entries}
    rows = sum(len(one.entries) for one in board.boards)
    subtitle = f"{rows} rows: {len(detectors)} detectors on {len(board.boards)} sets of test images"
    return page.page(words.TITLE, subtitle, sections, style=STYLE, script=SCRIPT)


def _introduction() -> str:
    said = (
        "Each row is a detector with its way of smoothing under one threat. Its true robust AUROC lies between what "
        "is certified, which no attack of this size can undercut, and what our attack reached; "
        f"{ESTIMATED}."
    )
    return page.paragraph(said) + page.paragraph(words.READING, "note")


def _filters(boards: Sequence[Board]) -> str:
    """The choices above the tables; hidden until the script that answers to them runs."""
    sets = dict.fromkeys(board.name for board in boards)
    entries = [entry for board in boards for entry in board.entries]
    sizes = sorted({(entry.norm, entry.radius) for entry in entries})
    threats = dict.fromkeys(words.threat(*size) for size in sizes)
    sides = {str(side): words.WHO[side] for side in SIDES}
    return (
        '<form class="filters" hidden>'
        + _choice("data set", "set", {name: name for name in sets}, "all")
        + _choice("attacked", "side", sides, "any of them", chosen="both")
        + _choice("threat", "threat", {name: name for name in threats}, "all")
        + f'<p class="note" role="status">{len(entries)} rows</p></form>'
    )


def _choice(label: str, name: str, options: dict[str, str], every: str, chosen: str = "") -> str:
    listed = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(text)}</option>'
        for value, text in {"": every, **options}.items()
    )
    return f'<label>{label} <select name="{name}">{listed}</select></label>'


def _anchors(boards: Iterable[Board]) -> list[str]:
    """A name in the page for each board, by data set, resolution and fingerprint, of several images by number."""
    names: list[str] = []
    for one in boards:
        about = f"{one.name}-{one.resolution}px-{one.fingerprint[:8]}".lower()
        name = re.sub(r"[^a-z0-9]+", "-", about).strip("-")
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        names.append(next(one for one in candidates if one not in names))
    return names


def _board(board: Board, name: str, anchors: dict[str, str]) -> str:
    title = escape(board.title.replace(" x ", " × "))
    about = escape(words.about(board))
    head = "".join(_head(column, kind) for column, kind in COLUMNS.items())
    groups = itertools.groupby(board.entries, key=lambda entry: (entry.norm, entry.side, entry.radius))
    bodies = "\n".join(_group(list(entries), anchors) for _, entries in groups)
    return (
        f'<div class="board" id="{name}" data-set="{escape(board.name)}"><h2>{title}</h2>{ranges_html(board)}'
        f'<div class="wide" tabindex="0" role="region" aria-label="{title}"><table>'
        f"<caption><span>AUROC over {about}.</span></caption>"
        f"<thead><tr>{head}</tr></thead>\n{bodies}</table></div></div>"
    )


def _head(column: str, kind: str) -> str:
    state = "descending" if column == RANKED else "none"
    return f'<th scope="col" data-sort="{kind}" aria-sort="{state}">{escape(column)}</th>'


def _group(entries: Sequence[Entry], anchors: dict[str, str]) -> str:
    """The rows of one threat."""
    first = entries[0]
    threat = words.threat(first.norm, first.radius)
    title = f"<span>{threat}, {words.WHO[first.side]} attacked</span>"
    rows = "\n".join(_row(entry, anchors) for entry in entries)
    return (
        f'<tbody data-side="{first.side}" data-threat="{threat}">'
        f'<tr><th scope="rowgroup" colspan="{len(COLUMNS)}">{title}</th></tr>\n{rows}</tbody>'
    )


def _row(entry: Entry, anchors: dict[str, str]) -> str:
    links = " ".join(
        f'<a href="#{anchors[record.name]}">{anchors[record.name][1:]}</a>' for record in entry.records
    )
    cells = [
        _number(entry.clean),
        _number(entry.certified, words.spread(entry.certified)),
        _number(entry.attacked),
        f"<td>{words.gap(entry)}</td>",
        *(
            f"<td>{escape(text)}</td>"
            for text in (words.confidence(entry.certified), words.attack(entry.attacked))
        ),
        f"<td>{escape(words.checks(entry.attacked))}</td>",
        f"<td>{links}</td>",
    ]
    return f'<tr><th scope="row">{page.text(entry.label)}</th>{"".join(cells)}</tr>'


def _number(found: Found | None, small: str = MISSING) -> str:
    """A number; one that is said in words is sorted by its value."""
    text = words.number(found)
    below = "" if small == MISSING else f"<small>{escape(small)}</small>"
    if found is not None and text.startswith((NOTHING, UNCONVERGED)):
        shown = text.partition(" (")[0]
        return f'<td data-value="{found.value:.4f}">{shown}{below}</td>'
    return f"<td>{text}{below}</td>"


def _records(board: Leaderboard, anchors: dict[str, str]) -> str:
    """What identifies each folder; its name leads to its manifest, where the page lies beside it."""
    head = "".join(
        f'<th scope="col">{name}</th>' for name in ("", "record", "content", "commit", "date", "commands")
    )
    rows = "\n".join(_record(record, anchors[record.name]) for record in board.records)
    note = (
        "content: the start of the SHA-256 of manifest.json followed by images.parquet. A star behind a commit: "
        "tracked files differed from it. A row with two records was certified in the first and attacked in the second."
    )
    silent = ", ".join(record.name for record in board.silent)
    return (
        f'<div class="wide records" tabindex="0" role="region" aria-label="Records"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div>"
        + page.paragraph(note, "note")
        + (page.paragraph(f"No radius above 0, and so no row: {silent}.", "note") if silent else "")
    )


def _record(record: Record, anchor: str) -> str:
    link = f'<a href="{escape(quote(f"{record.name}/{MANIFEST}"))}">{escape(record.name)}</a>'
    facts = [record.content, record.version or MISSING, record.finished[:10], record.commands]
    cells = "".join(f"<td>{escape(fact)}</td>" for fact in facts)
    return f'<tr id="{anchor}"><td>{anchor[1:]}</td><th scope="row">{link}</th>{cells}</tr>'
