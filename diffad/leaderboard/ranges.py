"""The figure of a board: for each detector at one threat its certified, attacked and clean AUROC on one line.

It is made of HTML, not drawn as a picture: it takes the colours of the page, and its labels stay readable on a phone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from diffad import page
from diffad.leaderboard import words
from diffad.leaderboard.entries import Board, Entry, Found
from diffad.ranking import HALF
from diffad.tables import ESTIMATED

# Kinds of marks and what they stand for.
KEY = {
    "certified": "certified",
    "attacked": "attacked",
    "clean": "clean",
    "gap": "not known",
    "gap open": "not known, nobody attacked",
}


def ranges_html(board: Board) -> str:
    """Return the figure at the threat that says most of the board; empty if nothing is certified on it."""
    entries = chosen(board)
    if not entries:
        return ""
    first = entries[0]
    caption = (
        f"AUROC at {words.threat(first.norm, first.radius)}, {words.WHO[first.side]} attacked. The truth lies in the "
        f"bar; {ESTIMATED}. The vertical line is .5, which a constant score certifies. The numbers are in the table "
        "below."
    )
    lines = "".join(f"<li><span>{page.text(entry.label)}</span>{_track(entry)}</li>" for entry in entries)
    key = " ".join(f'<span><i class="{kind}"></i> {name}</span>' for kind, name in KEY.items())
    axis = '<li><span></span><div class="axis"><b>0</b><b>.5</b><b>1</b></div></li>'
    return (
        f'<figure class="ranges"><ul role="img" aria-label="{escape(caption)}">{lines}{axis}</ul>'
        f'<p class="key note">{key}</p><figcaption>{escape(caption)}</figcaption></figure>'
    )


def chosen(board: Board) -> Sequence[Entry]:
    """Return the certified entries, all images attacked, of one radius.

    It is that with the most gaps known; then the largest at which half of the rows or more certify something, and the
    smallest if there is none.
    """
    certified = [entry for entry in board.entries if entry.side == "both" and entry.certified is not None]
    by_threat: dict[tuple[str, float], list[Entry]] = defaultdict(list)
    for entry in certified:
        by_threat[entry.norm, entry.radius].append(entry)
    best = max(by_threat, key=lambda threat: (*_says(by_threat[threat]), threat[0]), default=None)
    return [] if best is None else by_threat[best]


def _says(entries: Sequence[Entry]) -> tuple[int, bool, float]:
    """How many gaps are known, whether half of the certificates or more are worth the name, and the radius."""
    worthy = sum(entry.certified is not None and entry.certified.value > HALF for entry in entries)
    enough, radius = 2 * worthy >= len(entries), entries[0].radius
    return sum(entry.gap is not None for entry in entries), enough, radius if enough else -radius


def _track(entry: Entry) -> str:
    """The line of one detector: a bar from certified to attacked, or to clean where no attack counts, and the marks."""
    attacked = None if entry.gap is None else entry.attacked
    end = attacked or entry.clean
    bar = ""
    if entry.certified is not None and end is not None:
        width = 100 * (end.value - entry.certified.value)
        kind = "gap" if attacked is not None else "gap open"
        bar = f'<i class="{kind}" style="left:{100 * entry.certified.value:.1f}%;width:{width:.1f}%"></i>'
    marks = {"clean": entry.clean, "certified": entry.certified, "attacked": attacked}
    return f"<div>{bar}{''.join(_mark(kind, found) for kind, found in marks.items())}</div>"


def _mark(kind: str, found: Found | None) -> str:
    return "" if found is None else f'<i class="{kind}" style="left:{100 * found.value:.1f}%"></i>'
