from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from certify.types import ScoreBounds
from diffad.conditions import Subject, clean_condition
from diffad.results import write_run
from diffad.tables import (
    MISSING,
    NOTHING,
    auroc_table,
    cell_text,
    confidence_text,
    defect_table,
    find,
    format_table,
    radius_text,
    strongest,
    total_alpha,
)

SUBJECT = Subject("digits:8", 16, "diffusion", "reference", "l2", 1.0)


@pytest.fixture
def run(tmp_path, synthetic):
    return synthetic.run(tmp_path / "run", detector="diffusion", smoothing="reference")


def test_clean_auroc_is_that_of_scikit_learn(run):
    (clean,) = run.of(run.subjects[0], "clean")
    expected = roc_auc_score(clean.images.labels, clean.bounds.lower)
    assert find(auroc_table(run), condition="clean")["auroc"] == pytest.approx(expected, abs=1e-12)


def test_certified_sides_use_the_bounds_at_radius_zero(run):
    rows = auroc_table(run)
    zero, at = run.of(run.subjects[0], "certified")[0], run.of(run.subjects[0], "certified")[2]
    labels = at.images.labels
    worst_in = np.where(labels == 1, zero.bounds.lower, at.bounds.upper)
    row = find(rows, condition="certified", radius=at.radius, side="in")
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, worst_in), abs=1e-12)
    both = find(rows, condition="certified", radius=at.radius, side="both")
    assert both["auroc"] < row["auroc"]


def test_without_radius_zero_only_both_is_certified(run, synthetic, tmp_path):
    kept = [c for c in run.conditions if c.condition != "certified" or c.radius > 0]
    rows = auroc_table(write_run(tmp_path / "other", run.manifest, kept))
    assert {row["side"] for row in rows if row["condition"] == "certified"} == {"both"}


def test_attacked_sides_use_the_scores_left_alone(run):
    (attack, *_) = run.of(run.subjects[0], "attack", "l2")
    labels = attack.images.labels
    clean = np.where(labels == 0, attack.bounds.lower, attack.bounds.upper)
    worst_out = np.where(labels == 1, attack.bounds.lower, clean)
    row = find(auroc_table(run), condition="attack", norm="l2", radius=attack.radius, side="out")
    assert row["auroc"] == pytest.approx(roc_auc_score(labels, worst_out), abs=1e-12)


def test_infinite_bounds_are_counted_at_the_attacked_end(run):
    row = find(auroc_table(run), condition="certified", radius=0.5, side="both")
    assert row["infinite"] == pytest.approx(2 / 40)


def test_rates_at_the_threshold_have_clopper_pearson_intervals(run):
    row = find(auroc_table(run), condition="clean")
    (clean,) = run.of(run.subjects[0], "clean")
    flagged = clean.bounds.lower[clean.images.labels == 0] > 2.4
    assert row["fpr"] == flagged.mean()
    assert row["fpr_interval"][0] <= row["fpr"] <= row["fpr_interval"][1]


def test_a_threshold_counts_for_all_conditions_of_its_subject(run, tmp_path):
    without = [replace(c, threshold=None) if c.condition == "attack" else c for c in run.conditions]
    rows = auroc_table(write_run(tmp_path / "other", run.manifest, without))
    assert find(rows, condition="attack")["tpr"] is not None


@pytest.mark.parametrize(
    ("condition", "metric", "value", "text"),
    [
        ("certified", "auroc", 0.87699999, "0.876"),
        ("certified", "auroc", 0.5, NOTHING),
        ("certified", "auroc", 0.5004, "0.500"),
        ("certified", "fpr95", 0.12301, "0.124"),
        ("attack", "auroc", 0.8769, "0.877"),
        ("clean", "auroc", 0.4, "0.400"),
        ("certified", "tpr", None, MISSING),
    ],
)
def test_certified_numbers_never_claim_more_than_was_proved(condition, metric, value, text):
    assert cell_text({"condition": condition, metric: value}, metric, 3) == text


def test_the_printed_table_floors_and_names_what_it_rests_on(run):
    text = format_table(auroc_table(run))
    assert "alpha = 0.001 for all images of a cell together" in text
    assert "n = 1000" in text
    assert NOTHING in text  # at radius .5
    assert "8/255" in text  # Linf apart from L2
    certified = find(auroc_table(run), condition="certified", radius=0.25, side="both")
    assert f"{np.floor(certified['auroc'] * 1000) / 1000:.3f}" in text


def test_alpha_of_a_cell_is_the_union_over_its_images(run):
    row = find(auroc_table(run), condition="certified")
    assert total_alpha(row) == pytest.approx(0.001)
    assert total_alpha({**row, "alpha": None}) is None
    assert "an image" in confidence_text({**row, "alpha_kind": "per_image"})


def test_the_total_level_goes_before_the_convention_and_a_large_n_before_a_small_one():
    rows = [{"alpha_kind": kind, "n": n} for kind, n in (("total", 10), ("per_image", 1000), ("total", 100))]
    assert strongest(rows) == {"alpha_kind": "total", "n": 100}


def test_kinds_of_defect_are_compared_with_all_normals(synthetic, tmp_path):
    images = synthetic.images()
    scores = np.where(np.array(images.defects) == "blob", 5.0, 1.0) + 0.0
    rows = defect_table(
        write_run(tmp_path, synthetic.manifest(), [clean_condition(SUBJECT, images, scores, n=1, seed=0)])
    )
    assert {row["defect"]: row["auroc"] for row in rows} == {"blob": 1.0, "stain": 0.5}


def test_radii_are_written_as_people_do():
    assert radius_text(8 / 255, "linf") == "8/255"
    assert radius_text(0.25, "l2") == "0.25"


def test_bounds_of_two_levels_stand_side_by_side(run, tmp_path):
    convention = [
        replace(
            c, alpha=0.001, alpha_kind="per_image", bounds=ScoreBounds(c.bounds.lower + 0.01, c.bounds.upper)
        )
        for c in run.of(run.subjects[0], "certified")
    ]
    both = write_run(tmp_path / "both", run.manifest, [*run.conditions, *convention])
    text = format_table(auroc_table(both))
    assert "both, alpha an image" in text
    assert "literature's convention" in text
