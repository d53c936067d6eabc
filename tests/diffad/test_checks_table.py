"""What a manifest says of attacks, and how tables and pages show it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from diffad.attack_record import attack_record
from diffad.attacks import AttackResult
from diffad.attacks.checks import CheckOutcome
from diffad.checks_table import checks_html, counts
from diffad.compare import compare_table, format_comparison
from diffad.manifest import build_manifest, now
from diffad.metric_rows import auroc_table
from diffad.recorded_checks import failed_checks, find_record
from diffad.report import report_command
from diffad.report_tables import matrix_html
from diffad.results import read_run, write_run
from diffad.runs import Run, join_runs
from diffad.tables import cell_text, find, format_table

PASSED = CheckOutcome("eps_zero", True, 0.0, "largest distance", True)
FAILED = CheckOutcome(
    "black_boxes", False, 0.4, "share of images where an attack without gradients wins", True
)
OPTIONAL = CheckOutcome("doubling", False, 0.2, "largest change", False)
SKIPPED = CheckOutcome("shapes", None, None, "the attack needs no gradients", False)


def result_of(condition) -> AttackResult:
    """A result of one pixel whose numbers are those of an attacked condition."""
    images = torch.zeros(len(condition.images), 1, 1, 1)
    clean = condition.unattacked().lower
    worst = np.where(condition.images.labels == 0, condition.bounds.upper, condition.bounds.lower)
    info = {
        "attack": "pgd",
        "objective": "score",
        "steps": 50,
        "restarts": 3,
        "random_first": False,
        "seed": 0,
    }
    labels = condition.images.labels
    trace = np.stack([clean, worst], axis=1)
    return AttackResult(images, worst, clean, labels, condition.norm, condition.radius, info, trace)


def with_checks(run: Run, *outcomes: CheckOutcome, radius: float = 0.25) -> Run:
    """Add the record of the attack at one radius, as a further command of the run."""
    attacks = [c for c in run.conditions if c.condition == "attack" and c.radius == radius]
    records = [attack_record(one, result_of(one), outcomes, seconds=1.25) for one in attacks]
    manifest = build_manifest(
        "diffad attack",
        {"radius": radius, "checks": len(outcomes)},
        data=run.manifest["data"],
        detectors=run.manifest["detectors"],
        seeds={"attack": 0},
        started=now(),
        attacks=records,
    )
    return write_run(run.folder, manifest, attacks)


@pytest.fixture
def run(tmp_path, synthetic):
    return synthetic.run(tmp_path / "run")


def attacked(run: Run, radius: float):
    return next(c for c in run.conditions if (c.condition, c.norm, c.radius) == ("attack", "l2", radius))


def test_a_record_holds_what_repeats_an_attack_in_json_values(run):
    found = attacked(run, 0.25)
    record = attack_record(found, result_of(found), [PASSED, SKIPPED], seconds=1.25)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["norm"], record["radius"], record["eps"], record["steps"]) == ("l2", 0.25, "0.25", 50)
    assert record["start"] == {"clean": 1, "random": 2}
    assert record["attack_resolution"] == [1, 1, 1]
    assert record["mean_gain"] == pytest.approx(0.15)
    assert record["trace"] == pytest.approx([0.0, 0.15])
    assert record["failed_checks"] == []
    assert attack_record(found, result_of(found), [], seconds=1.0)["failed_checks"] is None
    linf = next(c for c in run.conditions if c.norm == "linf" and c.condition == "attack")
    assert attack_record(linf, result_of(linf), [], seconds=1.0)["eps"] == "8/255"


def test_rows_of_a_failed_attack_read_not_converged_and_name_the_check(run):
    checked = read_run(with_checks(run, PASSED, FAILED, OPTIONAL, SKIPPED).folder)
    assert failed_checks(checked.manifest, attacked(checked, 0.25)) == ["black_boxes"]
    assert failed_checks(checked.manifest, attacked(checked, 0.1)) is None
    rows = auroc_table(checked)
    row = find(rows, condition="attack", norm="l2", radius=0.25, side="both")
    assert row["failed_checks"] == ["black_boxes"]
    assert cell_text(row) == cell_text(row, "fpr95") == "not converged (black_boxes)"
    assert "not converged (black_boxes)" in format_table(rows)
    other = find(rows, condition="attack", norm="l2", radius=0.1, side="both")
    assert "failed_checks" not in other
    assert cell_text(other) == f"{other['auroc']:.3f}"


def test_a_later_attack_without_checks_takes_the_verdict_away(run):
    checked = with_checks(with_checks(run, FAILED))
    assert find_record(checked.manifest, attacked(checked, 0.25))["checks"] == []
    assert failed_checks(checked.manifest, attacked(checked, 0.25)) is None


def test_a_failed_optional_check_withholds_nothing(run):
    rows = auroc_table(with_checks(run, PASSED, OPTIONAL))
    row = find(rows, condition="attack", norm="l2", radius=0.25, side="both")
    assert row["failed_checks"] == []
    assert cell_text(row) == f"{row['auroc']:.3f}"


def test_compare_shows_it_too_wherever_the_attack_lies(run, tmp_path, synthetic):
    attacks = [c for c in run.conditions if c.condition == "attack"]
    apart = write_run(tmp_path / "attack", run.manifest, attacks)
    apart = with_checks(apart, FAILED)
    rest = write_run(tmp_path / "rest", run.manifest, [c for c in run.conditions if c.condition != "attack"])
    for order in ([rest, apart], [apart, rest]):
        rows = compare_table(order)
        (row,) = [row for row in rows if row["radius"] == 0.25]
        assert row["failed_checks"] == ["black_boxes"]
        assert row["attacked"] is not None  # the number stays in the record
        assert "not converged (black_boxes)" in format_comparison(rows)
        assert "≤ not converged" not in matrix_html(rows)
        assert "not converged (black_boxes)" in matrix_html(rows)
    (joined,) = join_runs([rest, apart])
    assert len(joined.manifest["commands"]) == 3


def test_the_report_counts_the_checks_and_lists_them(run, capsys):
    assert "not checked" in checks_html(run)
    checked = with_checks(run, PASSED, FAILED, OPTIONAL, SKIPPED)
    assert counts([one.as_dict() for one in (PASSED, FAILED, OPTIONAL, SKIPPED)]) == [
        *("1 of 3", "black_boxes*, doubling", "1")
    ]
    text = report_command(checked.folder).read_text()
    assert "Were the attacks any good?" in text
    assert "black_boxes*" in text
    assert FAILED.detail in text
    assert "our attack did not converge (black_boxes)" in text
    assert "not converged (black_boxes)" in capsys.readouterr().out


def test_a_run_without_attacks_says_nothing_of_checks(run):
    assert (
        checks_html(replace(run, conditions=tuple(c for c in run.conditions if c.condition == "clean"))) == ""
    )
