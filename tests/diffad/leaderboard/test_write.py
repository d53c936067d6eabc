"""The command: what it writes and says; and the committed pages are what it writes now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certify import console
from diffad.cli import main
from diffad.leaderboard import build_leaderboard, leaderboard_html, leaderboard_markdown, read_records

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "docs" / "results"


def test_two_pages_are_written_and_an_overview_is_printed(folders, capsys, tmp_path) -> None:
    run = folders.write("one")
    output = tmp_path / "out"
    stray = tmp_path / "notes.txt"
    stray.write_text("x")
    assert main(["leaderboard", str(run.folder), str(stray), "--output_dir", str(output)]) == console.DONE
    captured = capsys.readouterr()
    assert sorted(path.name for path in output.iterdir()) == ["leaderboard.html", "leaderboard.md"]
    assert "digits:8, 16 x 16, 20 + 20 images" in captured.out
    assert "certified <= attacked <= clean holds" in captured.out
    assert f"left out: {stray}: a file, not a run folder" in captured.err
    assert "../runs/one" in (output / "leaderboard.md").read_text(encoding="utf-8")


def test_json_is_one_object_with_every_row(folders, capsys, tmp_path) -> None:
    run = folders.write("one")
    folders.write("clean", ("clean",), detector="pca")
    assert main(["leaderboard", str(folders.root), "--json", "--output_dir", str(tmp_path)]) == console.DONE
    found = json.loads(capsys.readouterr().out)
    (board,) = found["boards"]
    assert board["fingerprint"] == run.manifest["data"]["fingerprint"]
    assert len(board["rows"]) == 12
    attacked = [row for row in board["rows"] if row["attacked"] is not None and row["certified"] is not None]
    assert all(row["gap"] == row["attacked"] - row["certified"] >= 0 for row in attacked)
    assert [record["name"] for record in found["records"]] == ["runs/one"]
    assert found["left_out"] == ["runs/clean"]


@pytest.mark.parametrize("named", [[], ["nowhere"]])
def test_nothing_to_read_ends_in_one_line(named, capsys, tmp_path) -> None:
    paths = [str(tmp_path / name) for name in named]
    output = tmp_path / "out"
    assert main(["leaderboard", *paths, "--output_dir", str(output)]) != console.DONE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert not output.exists()


def test_nothing_is_written_against_the_order(folders, capsys, tmp_path) -> None:
    folders.write("certified", ("clean", "certified"))
    folders.write("attacked", ("clean", "attack"), slope=3.0)
    output = tmp_path / "out"
    assert main(["leaderboard", str(folders.root), "--output_dir", str(output)]) == console.FAILED
    error = capsys.readouterr().err
    assert "order violated" in error
    assert "runs/certified" in error
    assert "runs/attacked" in error
    assert not output.exists()


def test_the_committed_pages_are_what_the_command_writes() -> None:
    board = build_leaderboard(read_records([RESULTS], RESULTS)[0])
    for name, text in (
        ("leaderboard.md", leaderboard_markdown(board)),
        ("leaderboard.html", leaderboard_html(board)),
    ):
        committed = (RESULTS / name).read_text(encoding="utf-8")
        assert text == committed, "run `diffad leaderboard docs/results --output_dir docs/results`"
