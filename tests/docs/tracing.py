"""From a number in a document to its source.

A `Text` quotes a passage in which every `{}` stands for one number and names the values that these numbers must be; a
`Table` does so for the cells of a Markdown table. Both know where their numbers stand, so that what nobody claims is
found (`unclaimed`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
# .934, 0.5, 12.5; not a version (0.1.0), a name (conv2.5x) or the end of a file name.
DECIMAL = re.compile(r"(?<![\w.])\d*\.\d+(?!\.\d|\w)")
VALUE = r"([−-]?(?:\d{1,3}(?: \d{3})+|\d*\.\d+|\d+))"
NOTHING = "nothing"  # a certified cell at or below .5


@dataclass(frozen=True)
class Floor:
    """A lower bound: it is floored where it is printed, never rounded."""

    value: float


Source: TypeAlias = float | Floor


@dataclass(frozen=True)
class Found:
    """A number at its place in a document, and the values of which it may be one."""

    start: int
    end: int
    quoted: str
    allowed: tuple[Source, ...]


@cache
def read(file: str) -> str:
    """Return a document by its path from the root."""
    return (ROOT / file).read_text(encoding="utf-8")


def agrees(quoted: str, source: Source) -> bool:
    """Whether the digits quoted are the source, floored or rounded (half either way) at the last of them."""
    number = float(quoted.replace("−", "-").replace(" ", ""))
    unit = 10.0 ** -len(quoted.partition(".")[2])
    if isinstance(source, Floor):
        return -1e-9 <= source.value - number < unit
    return abs(source - number) <= 0.5 * unit + 1e-9


@dataclass(frozen=True)
class Text:
    """A passage of a document. White space stands for any; `text` has one `{}` for each of `values`."""

    file: str
    text: str
    values: tuple[Source, ...]

    def found(self) -> Iterator[Found]:
        """Yield the numbers of the passage. The passage has to stand in the document exactly once."""
        words = [re.escape(word).replace(r"\{\}", VALUE) for word in self.text.split()]
        hits = list(re.finditer(r"\s+".join(words), read(self.file)))
        assert len(hits) == 1, f"{self.file}: stands there {len(hits)} times: {self.text}"
        groups = hits[0].re.groups
        assert groups == len(self.values), f"{self.text}: {groups} numbers, {len(self.values)} values"
        for place, value in enumerate(self.values, 1):
            yield Found(*hits[0].span(place), hits[0][place], (value,))


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    `kind` is the last of clean, certified, attacked at the head of its column or before; `group` the last first cell
    that was neither empty nor the start of an attacked row: a name may stand above several rows.
    """

    group: str
    row: str
    head: str
    kind: str
    text: str

    @property
    def radius(self) -> float:
        """The number at the end of the head, 0 where there is none."""
        number = re.search(r"\d*\.?\d+$", self.head)
        return float(number[0]) if number else 0.0


@dataclass(frozen=True)
class Table:
    """The first table below a heading. `values(cell)` returns, for each number of a cell, the values it may be.

    Cells without a decimal number are passed over, but for `nothing`: there every value must be at most .5.
    """

    file: str
    heading: str
    values: Callable[[Cell], list[tuple[Source, ...]]]
    skip: tuple[str, ...] = ()  # first cells of rows that are claimed otherwise

    def found(self) -> Iterator[Found]:
        """Yield the numbers of the table."""
        for start, cell in self._cells():
            numbers = list(DECIMAL.finditer(cell.text))
            if cell.row in self.skip or not (numbers or cell.text.strip() == NOTHING):
                continue
            allowed = self.values(cell)
            assert all([allowed, *allowed]), f"{self.heading}: nothing is recorded for {cell}"
            if not numbers:
                assert max(_plain(value) for values in allowed for value in values) <= 0.5, cell
            assert len(allowed) == len(numbers) or not numbers, (cell, allowed)
            for number, values in zip(numbers, allowed, strict=False):
                yield Found(start + number.start(), start + number.end(), number[0], values)

    def _cells(self) -> Iterator[tuple[int, Cell]]:
        text = read(self.file)
        begin = re.search(rf"^{re.escape(self.heading)}", text, re.MULTILINE)
        assert begin is not None, f"{self.file}: no {self.heading}"
        table = re.compile(r"(?:^\|.*\|\n)+", re.MULTILINE).search(text, begin.start())
        assert table is not None, f"{self.file}: no table below {self.heading}"
        heads, _, *rows = [(table.start() + at, line) for at, line in _lines(table[0])]
        names = [word.strip() for _, word in _split(heads[1])]
        group = ""
        for at, line in rows:
            cells = list(_split(line))
            kind, first = "clean", cells[0][1].replace("**", "").strip()
            group = first if first and not first.startswith("attacked") else group
            for (offset, word), head in zip(cells[1:], names[1:], strict=True):
                kind = next((one for one in ("clean", "certified", "attacked") if head.startswith(one)), kind)
                yield at + offset, Cell(group, first, head, kind, word)


Claim: TypeAlias = Text | Table


def _plain(source: Source) -> float:
    return source.value if isinstance(source, Floor) else source


def _lines(text: str) -> Iterator[tuple[int, str]]:
    at = 0
    for line in text.splitlines(keepends=True):
        yield at, line.rstrip("\n")
        at += len(line)


def _split(line: str) -> Iterator[tuple[int, str]]:
    """Yield the cells of a row with their places in it."""
    at = 1
    for word in line.strip()[1:-1].split("|"):
        yield at, word
        at += len(word) + 1


def prose(file: str) -> str:
    """Return a document with code, addresses of links, heads and first cells of tables blanked, each place kept."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    text = read(file)
    for pattern in (
        r"^```.*?^```$",  # blocks of code
        r"`[^`]*?`",  # code in a line
        r"\]\([^)]*\)",  # addresses
        r"^\|.*\|\n(?=\|[-| ]+\|$)",  # heads of tables: radii, names
        r"^\|[^|\n]*\|(?=.*\|$)",  # first cells: what a row is, with its settings
    ):
        text = re.sub(
            pattern, blank, text, flags=re.MULTILINE | re.DOTALL if "```" in pattern else re.MULTILINE
        )
    return text


def unclaimed(file: str, claims: Iterable[Claim], exempt: Iterable[re.Pattern[str]]) -> list[str]:
    """Return `file:line: number in its line` for every decimal number that no claim and no exemption covers."""
    text = prose(file)
    covered = [(one.start, one.end) for claim in claims if claim.file == file for one in claim.found()]
    covered += [match.span() for pattern in exempt for match in pattern.finditer(text)]
    missing = []
    for number in DECIMAL.finditer(text):
        if not any(start <= number.start() and number.end() <= end for start, end in covered):
            line = text.count("\n", 0, number.start())
            missing.append(f"{file}:{line + 1}: {number[0]} in: {read(file).splitlines()[line].strip()}")
    return missing
