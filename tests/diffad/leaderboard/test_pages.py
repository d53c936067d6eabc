"""Both pages say what the rows say; the HTML one is sound, self-contained and sortable."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from diffad.leaderboard import leaderboard_html, leaderboard_markdown
from diffad.leaderboard.html import COLUMNS
from diffad.leaderboard.markdown import escaped
from diffad.leaderboard.ranges import chosen
from diffad.tables import NOTHING

VOID = {"meta", "link", "br", "img", "hr", "input", "source"}
EVIL = '<script>alert("x")</script>|`*[a](b)'


class Page(HTMLParser):
    """Refuses tags that are not closed in order; keeps elements, text of cells, and what refers elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.append((tag, dict(attrs), tuple(self.open)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.seen if name == tag]


@pytest.fixture(scope="module")
def board(shared_folders):
    folders = shared_folders
    folders.write("one")
    folders.write("noisy", detector="diffusion", smoothing="reference", sigma=1.0, slope=2.0)
    folders.write("attacked", ("clean", "attack"), detector="pca", fingerprint="cd" * 32)
    folders.write("certified", ("clean", "certified"), detector=EVIL, resolution=32)
    return folders.board()


def test_the_page_is_sound_and_loads_nothing(board) -> None:
    text = leaderboard_html(board)
    page = Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttpRequest", text)
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert all("src" not in attributes for _, attributes, _ in page.seen)
    ids = [attributes["id"] for _, attributes, _ in page.seen if "id" in attributes]
    assert len(ids) == len(set(ids)) == 3 + 4
    inside = [link["href"][1:] for link in page.all("a") if link["href"].startswith("#")]
    assert inside
    assert set(inside) <= set(ids)
    elsewhere = {link["href"] for link in page.all("a") if not link["href"].startswith("#")}
    assert elsewhere == {f"{name}/manifest.json" for name in ("one", "noisy", "attacked", "certified")}


def test_tables_are_accessible_and_sortable_by_every_column(board) -> None:
    page = Page(leaderboard_html(board))
    heads = [head for head in page.all("th") if "data-sort" in head]
    assert len(heads) == 3 * len(COLUMNS)
    assert all(head["scope"] == "col" and head["aria-sort"] in ("none", "descending") for head in heads)
    assert {head["data-sort"] for head in heads} == {"text", "number"}
    assert sum(head["aria-sort"] == "descending" for head in heads) == 3
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in page.all("th"))
    assert len(page.all("caption")) == 3
    assert [tag for tag, _, parents in page.seen if tag == "caption" and parents[-1] != "table"] == []
    scrolled = [box for box in page.all("div") if "wide" in (box.get("class") or "")]
    assert all(box["tabindex"] == "0" and box["role"] == "region" and box["aria-label"] for box in scrolled)


def test_filters_wait_for_the_script_and_offer_what_is_there(board) -> None:
    page = Page(leaderboard_html(board))
    (form,) = page.all("form")
    assert "hidden" in form
    assert [choice["name"] for choice in page.all("select")] == ["set", "side", "threat"]
    offered = [option["value"] for option in page.all("option")]
    assert offered == [
        "",
        "digits:8",
        "",
        "both",
        "out",
        "in",
        "",
        "L2 0.1",
        "L2 0.25",
        "L2 0.5",
        "Linf 8/255",
    ]
    bodies = [body for body in page.all("tbody") if "data-side" in body]
    assert {body["data-side"] for body in bodies} == {"both", "in", "out"}
    assert {body["data-threat"] for body in bodies} <= set(offered)


def test_each_entry_is_a_row_with_its_numbers(board) -> None:
    page = Page(leaderboard_html(board))
    rows = [row for row in page.rows if len(row) == len(COLUMNS) and row[0] != "detector"]
    entries = [entry for one in board.boards for entry in one.entries]
    assert len(rows) == len(entries)
    for row, entry in zip(rows, entries, strict=True):
        assert row[0].replace("\u00a0", " ") == entry.label
        for cell, found in zip(row[1:4], (entry.clean, entry.certified, entry.attacked), strict=True):
            if found is None:
                assert cell == "-"
            elif found is entry.certified and found.value <= 0.5:
                assert cell.startswith(NOTHING)
            else:
                shown = float(cell.partition("[")[0])
                assert found.value - 0.001 < shown <= found.value + 0.0005
        assert (row[4] == "-") == (entry.gap is None)


def test_markup_in_a_name_stays_text(board) -> None:
    text = leaderboard_html(board)
    assert 'alert("x")' not in text
    assert any(EVIL in row[0] for row in Page(text).rows)
    markdown = leaderboard_markdown(board)
    assert "<script>" not in markdown
    (line,) = [line for line in markdown.splitlines() if "alert" in line and line.startswith("| L2 0.25")]
    assert r"\|\`\*\[a\](b)" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 14
    assert escaped("two\nlines  here") == "two lines here"


def test_markdown_has_a_table_for_each_data_set_and_a_line_for_each_threat(board) -> None:
    text = leaderboard_markdown(board)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## digits:8, 16 x 16, 20 + 20 images",
        "## digits:8, 16 x 16, 20 + 20 images",
        "## digits:8, 32 x 32, 20 + 20 images",
        "## Records",
    ]
    lines = [line for line in text.splitlines() if line.startswith(("| L2", "| Linf"))]
    assert len(lines) == sum(entry.side == "both" for one in board.boards for entry in one.entries)
    best = board.boards[1].entries[0]
    shown = f"| {best.label} | {best.clean.value:.3f} | "
    assert any(line.startswith(f"| L2 0.1 {shown}") for line in lines)
    assert all(record.content in text for record in board.records)


def test_the_figure_shows_the_radius_with_most_gaps_known(board) -> None:
    joined = next(one for one in board.boards if len({entry.label for entry in one.entries}) == 2)
    entries = chosen(joined)
    assert {(entry.radius, entry.side) for entry in entries} == {(0.25, "both")}
    assert len(entries) == 2
    text = leaderboard_html(board)
    for entry in entries:
        width = 100 * entry.gap
        assert (
            f'<i class="gap" style="left:{100 * entry.certified.value:.1f}%;width:{width:.1f}%"></i>' in text
        )
    # an attack alone certifies nothing: no figure; a certificate alone: to the clean value
    assert text.count('<figure class="ranges">') == 2
    assert '<i class="gap open" style="' in text


def test_a_failed_check_takes_the_number_away(folders) -> None:
    def failed(manifest):
        record = {
            **{
                "dataset": "digits:8",
                "resolution": 16,
                "detector": "pixel_nn",
                "smoothing": "none",
                "score_name": "l2",
            },
            **{"sigma": None, "norm": "l2", "radius": 0.25, "n": 0, "method": "", "checks": []},
            "failed_checks": ["black box"],
        }
        manifest["commands"][0]["attacks"] = [record]

    folders.write("one", manifest=failed)
    board = folders.board()
    entry = next(
        one for one in board.boards[0].entries if (one.norm, one.radius, one.side) == ("l2", 0.25, "both")
    )
    assert entry.gap is None
    row = next(
        row
        for row in Page(leaderboard_html(board)).rows
        if row[3:] == ["not converged", "-", "no noise", "unnamed", "failed: black box", "1"]
    )
    assert row[0] == "pixel_nn (l2)"
    assert "| not converged (black box) | - |" in leaderboard_markdown(board)


def test_every_name_in_the_page_is_there_once(folders) -> None:
    """The same data of which other images were scored are a board of their own, under a name of its own."""
    folders.write("all")
    folders.write("some", change=lambda one: one.take(one.images.index[:25]))
    page = Page(leaderboard_html(folders.board()))
    names = [attributes["id"] for _, attributes, _ in page.seen if "id" in attributes]
    assert len(names) == len(set(names)) == 4
