"""The tracing itself: a wrong number, a number without a source and a rounded lower bound are found."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import tracing
from tracing import Cell, Floor, Table, Text, agrees, unclaimed

PAGE = """# Page

It keeps .934 of it, at a radius of .25, in version 0.1.0; see [a](b-0.5.md) and `--sigma 0.75`.

| | clean | certified .1 | .2 |
|---|---|---|---|
| `one`, σ = .5 | .981 | **.950** | nothing |

```
--alpha 0.001
```
"""


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(tracing, "read", lambda file: PAGE)
    return "page.md"


def table(page: str) -> Table:
    values = {"clean": 0.981, ".2": Floor(0.49), "certified .1": Floor(0.9508)}
    return Table(page, "# Page", lambda cell: [(values[cell.head],)])


@pytest.mark.parametrize(
    ("quoted", "source", "right"),
    [
        (".934", 0.9344, True),
        (".934", 0.9346, False),
        (".934", Floor(0.9349), True),
        (".935", Floor(0.9349), False),  # rounded up: says more than was proved
        ("−.014", -0.0137, True),
        ("147 008", 147008.0, True),
        ("2.7", 2.745, True),
    ],
)
def test_the_last_digit_decides(quoted: str, source: float | Floor, right: bool) -> None:
    assert agrees(quoted, source) is right


def test_numbers_without_a_source_are_named_with_their_line(page: str) -> None:
    missing = unclaimed(page, [table(page)], [re.compile(r"radius of \.25")])
    assert missing == [f"page.md:3: .934 in: {PAGE.splitlines()[2]}"]
    assert unclaimed(page, [table(page), Text(page, "keeps {} of it", (0.934,))], [re.compile(r"\.25")]) == []


def test_code_names_and_versions_are_no_numbers(page: str) -> None:
    assert [line.split()[1] for line in unclaimed(page, [], [])] == [".934", ".25", ".981", ".950"]


def test_a_passage_stands_there_once_with_a_value_for_each_number(page: str) -> None:
    assert [one.quoted for one in Text(page, "keeps {} of it, at a radius of {},", (0.0, 0.0)).found()] == [
        ".934",
        ".25",
    ]
    for text, values in (("keeps {} of them", (0.934,)), ("keeps {} of it", (0.9, 0.1))):
        with pytest.raises(AssertionError):
            list(Text(page, text, values).found())


def test_a_table_knows_kind_and_radius(page: str) -> None:
    seen: list[Cell] = []

    def note(cell: Cell) -> list[tuple[float, ...]]:
        seen.append(cell)
        return [(0.4,)]

    list(Table(page, "# Page", note).found())
    assert [(cell.kind, cell.radius) for cell in seen] == [
        ("clean", 0.0),
        ("certified", 0.1),
        ("certified", 0.2),
    ]


def test_nothing_certified_has_to_be_so(page: str) -> None:
    too_much: Callable[[Cell], list[tuple[Floor, ...]]] = lambda cell: [(Floor(0.6),)]  # noqa: E731
    with pytest.raises(AssertionError):
        list(Table(page, "# Page", too_much).found())
