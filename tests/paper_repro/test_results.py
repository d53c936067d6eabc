"""RESULTS.md is what the command writes now, its sources are in order, and what contradicts itself is refused."""

import json
from pathlib import Path

import pytest

from certify.checks import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results(monkeypatch):
    """The module that writes RESULTS.md, of this checkout."""
    monkeypatch.syspath_prepend(str(ROOT))
    from paper_repro import results

    return results


def test_the_committed_page_is_what_the_command_writes(results, tmp_path) -> None:
    results.write(tmp_path / "RESULTS.md")
    committed = (ROOT / "paper_repro" / "RESULTS.md").read_text(encoding="utf-8")
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == committed, (
        "run `python -m paper_repro results`"
    )


def test_every_table_is_certified_below_attacked_below_clean(results) -> None:
    files = sorted((ROOT / "paper_repro").glob("*/results/*/summary.json"))
    assert {file.parents[2].name for file in files} >= {"zarnd", "cobra", "atd"}
    for file in files:
        assert list(results.faults(json.loads(file.read_text(encoding="utf-8"))["rows"])) == []


def row(condition: str, auroc: float, **more: object) -> dict[str, object]:
    side = "clean" if condition == "clean" else "both"
    return {
        "run": "r",
        "condition": condition,
        "side": side,
        "norm": "l2",
        "radius": 0.1,
        "auroc": auroc,
        **more,
    }


@pytest.mark.parametrize(
    ("certified", "attacked", "said"),
    [
        (0.5, 0.6, None),
        (0.6, 0.6, None),
        (0.7, 0.6, "r: certified both 0.7000 above 0.6000"),
        (0.5, 0.95, "r: attack both 0.9500 above 0.9000"),
    ],
)
def test_a_row_that_contradicts_the_order_is_named(results, certified, attacked, said) -> None:
    rows = [row("clean", 0.9), row("attack", attacked), row("certified", certified)]
    assert list(results.faults(rows)) == ([] if said is None else [said])
    elsewhere = [row("attack", 0.6), row("certified", 0.7, radius=0.05)]  # another radius: no contradiction
    assert list(results.faults(elsewhere)) == []


def test_the_page_is_not_written_against_the_order(results, monkeypatch, tmp_path) -> None:
    rows = [row("clean", 0.5), row("attack", 0.6)]
    monkeypatch.setattr(results, "summary", lambda paper, preset: {"rows": rows})
    with pytest.raises(InputError, match="certified <= attacked <= clean does not hold: r: attack both"):
        results.write(tmp_path / "RESULTS.md")
    assert not (tmp_path / "RESULTS.md").exists()


def test_verdicts_follow_from_the_numbers(results) -> None:
    from paper_repro.published import cobra, table

    assert table.holds(True, "x") == "holds: x"
    assert table.holds(False, "x") == "**does not hold**: x"
    assert table.contradicts({"clean": 92.8, "attacked": 96.4}).startswith("published attacked above clean")
    assert table.contradicts({"clean": 83.7, "attacked": 62.3}) == ""
    assert cobra.rank({"a": 0.5, "b": 0.7}, "a") == 2
    assert table.published_pair({"clean": 83.7, "attacked": 62.3}) == "0.837 / 0.623"


def test_rows_that_nobody_ran_name_the_command(results) -> None:
    lines = [line for source in results.SOURCES for one in source.tables() for line in one.lines]
    unrun = [line for line in lines if line.verdict.startswith("not run")]
    assert unrun
    for line in unrun:
        assert line.ours == "-"
        assert "`python -m paper_repro " in line.verdict


def test_images_crafted_against_another_score_are_under_no_order(results) -> None:
    rows = [row("clean", 0.9), row("elsewhere", 0.91)]
    assert list(results.faults(rows)) == []
    assert list(results.faults([*rows, row("attack", 0.91)])) == ["r: attack both 0.9100 above 0.9000"]
