"""One draw an image: rows that are the library's bounds of the stored draws, and a threshold of single draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certify.metrics import auroc
from certify.one_draw import one_draw_auroc, one_draw_rates
from certify.types import ScoreBounds
from diffad.baselines.closed_form import ClosedForm
from diffad.data import load_data
from diffad.one_draw import estimates, format_one_draw, one_draw_rows, one_draw_statements
from diffad.plan import Plan, smooth

PLAN = Plan(smoothing="reference", sigma=1.0, radii=(0.05, 0.1), n=60, batch_size=50, alpha=0.01)


@pytest.fixture(scope="module")
def split():
    return load_data("digits", normal_class="8", resolution=8, limit=8)


@pytest.fixture(scope="module")
def closed_form(split):
    return ClosedForm(draws=3).fit(split.train.images)


@pytest.fixture(scope="module")
def rows(closed_form, split):
    return one_draw_rows(closed_form, split, PLAN)


def test_rows_are_the_bounds_of_the_draws(rows, closed_form, split) -> None:
    labels = split.test.labels.numpy()
    draws = smooth(closed_form, PLAN).noisy_scores(split.test.images, range(len(labels)))
    assert [(row["side"], row["radius"]) for row in rows] == [
        ("clean", 0.0),
        *[(side, radius) for side in ("in", "out", "both") for radius in PLAN.radii],
    ]
    for row in rows:
        given = (1.0, [row["radius"]], 0.01, row["side"], 1.0)
        assert row["auroc"] == one_draw_auroc(draws, labels, *given)[0]
        tpr, fpr = one_draw_rates(draws, labels, row["threshold"], *given)
        assert (row["tpr"], row["fpr"], row["n"], row["alpha"]) == (tpr[0], fpr[0], 60, 0.01)
        assert row["auroc"] < row["auroc_estimate"]
        assert row["fpr"] > row["fpr_estimate"]
    many = ScoreBounds.exact(draws.ravel())
    assert rows[0]["auroc_estimate"] == pytest.approx(auroc(many, np.repeat(labels, 60)), abs=1e-12)


def test_the_threshold_is_a_rank_of_single_draws_of_normals(rows, closed_form, split) -> None:
    normals = split.calibration.images[:50]
    draws = smooth(closed_form, replace(PLAN, n=1)).noisy_scores(normals, range(len(normals)), "calibrate")
    rank = int(np.ceil((len(normals) + 1) * 0.9))
    assert rows[0]["threshold"] == np.sort(draws[:, 0])[rank - 1]


def test_a_joint_table_shares_alpha_over_auroc_and_rates_of_every_cell(rows, closed_form, split) -> None:
    joint = replace(PLAN, joint=True)
    assert (
        one_draw_statements(joint) == 14
    )  # nobody attacked and three sides at two radii, two statements each
    assert one_draw_statements(PLAN) == 1
    shared = one_draw_rows(closed_form, split, joint)
    assert shared[0]["alpha"] == pytest.approx(0.01 / 14)
    assert all(strict["auroc"] < row["auroc"] for strict, row in zip(shared, rows, strict=True))


def test_a_lost_draw_loses() -> None:
    draws = np.array([[0.0, np.nan], [1.0, np.nan]])
    assert estimates(draws, np.array([0, 1]), 0.5) == {
        "auroc_estimate": 0.25,
        "tpr_estimate": 0.5,
        "fpr_estimate": 0.5,
    }


def test_the_table_floors_what_it_certifies_and_says_where_that_is_nothing(rows) -> None:
    made = [
        {**row, "auroc": 0.4, "auroc_estimate": 0.9876, "tpr": 0.6789, "fpr": 0.1231}
        | {"tpr_estimate": 0.75, "fpr_estimate": 0.1}
        for row in rows
    ]
    lines = format_one_draw(made).splitlines()
    assert len(lines) == 4  # the header, radius 0, two radii
    assert "nothing certified" in lines[1]
    assert lines[3].split()[-4:] == ["0.750", "0.678", "0.100", "0.124"]
    assert format_one_draw(rows).splitlines()[1].split()[0] == "0"


def test_over_outlier_sets_the_mean_of_the_bounds_is_stated() -> None:
    """Each set has its share of alpha, so that all hold together, and with them their mean."""
    options = {"protocol": "ood", "normal_class": "0,1", "outliers": ["rest", "textures"]}
    split = load_data("digits", resolution=8, limit=8, **options)
    detector = ClosedForm(draws=3).fit(split.train.images)
    rows = one_draw_rows(detector, split, PLAN)
    labels = split.test.labels.numpy()
    draws = smooth(detector, PLAN).noisy_scores(split.test.images, range(len(labels)))
    for row in rows:
        found = {}
        for name in ("rest", "textures"):
            keep = np.array(
                [
                    label == 0 or defect.startswith(name)
                    for label, defect in zip(labels, split.test.defects, strict=True)
                ]
            )
            found[name] = one_draw_auroc(
                draws[keep], labels[keep], 1.0, [row["radius"]], 0.01 / 2, row["side"], 1.0
            )[0]
        assert row["auroc_sets"] == found
        assert row["auroc"] == np.mean(list(found.values()))
        assert row["alpha"] == 0.01
        assert row["auroc"] < row["auroc_estimate"]
    assert "mean over the outlier sets rest, textures" in format_one_draw(rows)
