from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from certify.confidence import auroc_confidence, tpr_fpr_confidence
from certify.uncertainty import delong_interval
from diffad.conditions import Subject, clean_condition
from diffad.metric_rows import auroc_table, defect_table
from diffad.results import write_run
from diffad.tables import find, format_table

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


def test_kinds_of_defect_are_compared_with_all_normals(synthetic, tmp_path):
    images = synthetic.images()
    scores = np.where(np.array(images.defects) == "blob", 5.0, 1.0) + 0.0
    rows = defect_table(
        write_run(tmp_path, synthetic.manifest(), [clean_condition(SUBJECT, images, scores, n=1, seed=0)])
    )
    assert {row["defect"]: row["auroc"] for row in rows} == {"blob": 1.0, "stain": 0.5}


def test_the_interval_over_test_images_is_delongs(run):
    row = find(auroc_table(run), condition="certified", radius=0.25, side="both")
    at = next(c for c in run.of(run.subjects[0], "certified") if c.radius == 0.25)
    expected = delong_interval(at.bounds, at.images.labels)
    assert row["auroc_interval"] == [expected.low, expected.high]
    assert row["auroc_interval"][0] < row["auroc"] < row["auroc_interval"][1]


@pytest.mark.parametrize("kind", ["failures", "population"])
def test_bounds_that_may_be_wrong_pay_for_it(run, tmp_path, kind):
    level = 0.001
    changed = [
        replace(c, alpha=level, alpha_kind=kind) if c.condition == "certified" else c for c in run.conditions
    ]
    other = write_run(tmp_path / kind, run.manifest, changed)
    row = find(auroc_table(other), condition="certified", radius=0.25, side="both")
    at = next(c for c in other.of(other.subjects[0], "certified") if c.radius == 0.25)
    given = {"method": kind, "alpha": level, "alpha_per_image": level}
    assert row["auroc"] == auroc_confidence(at.bounds, at.images.labels, **given).value
    rates = tpr_fpr_confidence(at.bounds, at.images.labels, row["threshold"], **given)
    assert [row["tpr"], row["fpr"]] == [rate.value for rate in rates]
    assert row["auroc"] < find(auroc_table(run), condition="certified", radius=0.25, side="both")["auroc"]
    assert row["ap"] is row["fpr95"] is row["auroc_interval"] is None  # no such statement
    assert "0.001" in format_table([row])


def test_the_bounds_at_radius_zero_have_to_be_of_the_same_level(run, tmp_path):
    other = [
        replace(c, alpha=0.5 * c.alpha) if c.condition == "certified" and c.radius == 0.0 else c
        for c in run.conditions
    ]
    rows = auroc_table(write_run(tmp_path / "levels", run.manifest, other))
    assert {row["side"] for row in rows if row["condition"] == "certified" and row["radius"] > 0} == {"both"}


@pytest.mark.parametrize("kind", ["total", "failures", "population"])
def test_of_outlier_sets_the_mean_is_taken(run, kind):
    """Sets of different size: each is a run of its own, whose numbers are averaged without weights."""

    def named(condition):
        labels = condition.images.labels
        owner = iter(["small"] * 5 + ["large"] * int(labels.sum()))
        defects = tuple(f"{next(owner)}/x" if label else "good" for label in labels)
        changed = {"alpha_kind": kind, "alpha": 0.01} if condition.condition == "certified" else {}
        return replace(condition, images=replace(condition.images, defects=defects), **changed)

    manifest = {**run.manifest, "data": {**run.manifest["data"], "options": {"protocol": "ood"}}}
    whole = replace(run, manifest=manifest, conditions=tuple(map(named, run.conditions)))

    def alone(name):
        keep = [np.array([d in ("good", f"{name}/x") for d in c.images.defects]) for c in whole.conditions]
        taken = [c.take(c.images.index[k]) for c, k in zip(whole.conditions, keep, strict=True)]
        return auroc_table(replace(run, conditions=tuple(taken)))

    tables = {name: alone(name) for name in ("small", "large")}
    for place, row in enumerate(auroc_table(whole)):
        parts = {name: table[place] for name, table in tables.items()}
        if kind == "total" or row["condition"] != "certified":
            assert row["auroc_sets"] == {name: part["auroc"] for name, part in parts.items()}
            assert row["fpr"] == pytest.approx(parts["small"]["fpr"])
            assert row["ap"] == pytest.approx((parts["small"]["ap"] + parts["large"]["ap"]) / 2)
        else:  # each of two statements at half the level: never above the one alone
            assert all(row["auroc_sets"][name] <= part["auroc"] for name, part in parts.items())
        assert row["auroc"] == pytest.approx(np.mean(list(row["auroc_sets"].values())), abs=1e-12)
        assert row["auroc_interval"] is None
        assert row["tpr_interval"] is None
        printed = row["condition"] == "clean" or (row["condition"] == "certified" and row["side"] == "both")
        if printed and (kind == "total" or row["condition"] == "clean"):
            assert row["auroc_bootstrap"][0] <= row["auroc"] <= row["auroc_bootstrap"][1]
        else:
            assert row["auroc_bootstrap"] is None
    assert "certified" in format_table(auroc_table(whole))
