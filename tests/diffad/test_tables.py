from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.metric_rows import auroc_table
from diffad.results import write_run
from diffad.tables import (
    MISSING,
    NOTHING,
    cell_text,
    confidence_text,
    find,
    format_table,
    interval_text,
    radius_text,
    strongest,
    total_alpha,
)


@pytest.fixture
def run(tmp_path, synthetic):
    return synthetic.run(tmp_path / "run", detector="diffusion", smoothing="reference")


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


@pytest.mark.parametrize("kind", ["failures", "population"])
def test_other_confidences_say_what_they_cover_and_keep_their_level(run, kind):
    row = {**find(auroc_table(run), condition="certified"), "alpha_kind": kind, "alpha": 0.001}
    assert total_alpha(row) == 0.001
    assert {"failures": "wrong bounds", "population": "further images"}[kind] in confidence_text(row)


@pytest.mark.parametrize("kind", ["total", "failures", "population"])
def test_a_joint_table_says_that_it_holds_at_once(run, kind):
    row = {**find(auroc_table(run), condition="certified"), "alpha_kind": kind, "joint_alpha": 0.001}
    assert "alpha = 0.001 for all cells of one smoothed detector together (" in confidence_text(row)
    assert "smoothed detector" not in confidence_text({**row, "alpha_kind": "per_image"})


def test_intervals_are_rounded_outwards():
    assert interval_text([0.9199, 0.9801]) == "[0.91, 0.99]"
    assert interval_text(None) == MISSING


def test_the_total_level_goes_before_the_convention_and_a_large_n_before_a_small_one():
    levels = (("total", 10), ("per_image", 1000), ("total", 100))
    rows = [{"condition": "certified", "alpha_kind": kind, "n": n} for kind, n in levels]
    assert strongest(rows) == {"condition": "certified", "alpha_kind": "total", "n": 100}


def test_of_several_attacks_the_one_that_came_furthest_speaks(run, tmp_path):
    def by(method, c, factor):
        moved = ScoreBounds(c.bounds.lower - factor, c.bounds.upper + factor)
        return replace(c, method=method, bounds=moved)

    attacks = [c for c in run.conditions if c.condition == "attack"]
    more = [by(method, c, 0.1 * step) for c in attacks for step, method in enumerate(("pgd", "square"), 1)]
    both = write_run(tmp_path / "both", run.manifest, [*run.conditions, *more])
    rows = [row for row in auroc_table(both) if (row["norm"], row["radius"]) == ("l2", 0.1)]
    found = strongest(rows, condition="attack", side="both")
    assert found["method"] == "square"
    assert found["auroc"] == min(row["auroc"] for row in rows if row["condition"] == "attack")
    header = next(line for line in format_table(auroc_table(both)).splitlines() if "l2 radius" in line)
    assert all(name in header for name in ("attacked: in", "pgd: in", "square: in"))


def test_radii_are_written_as_people_do():
    assert radius_text(8 / 255, "linf") == "8/255"
    assert radius_text(0.25, "l2") == "0.25"
    assert radius_text(2 / 3, "l2") == "0.666666"  # what is certified at 2/3 is not at 0.666667


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
