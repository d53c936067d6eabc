from __future__ import annotations

from dataclasses import replace

import pytest

from diffad.how_sure import chance_of_error, covered, statement, which_images
from diffad.metric_rows import auroc_table
from diffad.runs import Run

ROW = {
    "auroc": 0.8123,
    "radius": 2 / 3,
    "normals": 500,
    "anomalies": 400,
    "n": 1000,
    "condition": "certified",
}


@pytest.fixture
def run(tmp_path, synthetic) -> Run:
    return synthetic.run(tmp_path / "run", detector="diffusion", smoothing="reference")


def of_kind(run: Run, kind: str, **config) -> Run:
    def change(c):
        return replace(c, alpha_kind=kind, alpha=0.001) if c.condition == "certified" else c

    entry = {**run.manifest["commands"][0], "command": "certify", "config": config}
    changed = tuple(change(c) for c in run.conditions)
    return replace(run, manifest={**run.manifest, "commands": [entry]}, conditions=changed)


def test_the_union_speaks_of_these_images_and_of_the_noise() -> None:
    said = statement({**ROW, "alpha": 0.001 / 900, "alpha_kind": "total"})
    assert said == (
        "with probability at least 0.9990 over the certification noise (1000 draws an image), no attack of L2 size at "
        "most 0.666666 on each of these 900 images brings the AUROC below 0.812."
    )


def test_the_population_has_the_theorem_that_was_proved() -> None:
    said = statement({**ROW, "alpha": 0.001, "alpha_kind": "population"})
    assert said == (
        "with probability at least 1 - 0.001 over the draw of the test images and the certification noise, no attack "
        "within L2 radius 0.666666 lowers the AUROC of the smoothed detector expected on images drawn like these below "
        "0.812. It rests on 1000 draws an image."
    )
    assert "these 900 images" not in said


def test_the_number_of_failures_rests_on_independent_noise() -> None:
    said = statement({**ROW, "alpha": 0.001, "alpha_kind": "failures"})
    assert "over the certification noise, independent between images, no attack within" in said
    assert "of the smoothed detector on these images below 0.812." in said


def test_without_noise_there_is_no_chance_and_at_a_half_no_claim() -> None:
    assert statement({**ROW, "alpha": None, "alpha_kind": "total"}).endswith("no chance is involved.")
    assert statement({**ROW, "auroc": 0.5, "alpha": 0.001}) == "at L2 radius 0.666666 nothing is certified."


def test_auroc_and_rates_are_two_statements_where_they_are(run) -> None:
    assert "for all images of the cell together" in covered(run)
    for kind in ("failures", "population"):
        found = of_kind(run, kind)
        assert "the two rates of the cell is another" in covered(found)
        assert "all images of the cell" not in covered(found)
        row = next(row for row in auroc_table(found) if row["condition"] == "certified")
        assert (
            chance_of_error(found, row, 0.001)
            == "alpha = 0.001 for each statement, the AUROC of a cell or its two rates"
        )


def test_a_joint_level_is_that_of_one_smoothed_detector(run) -> None:
    joint = of_kind(run, "total", joint=True, alpha=0.01)
    assert covered(joint) == (
        "The statements of all cells of one smoothed detector together hold with probability at least 0.9900; another "
        "row has a chance of error of its own."
    )
    row = next(row for row in auroc_table(joint) if row["condition"] == "certified")
    assert chance_of_error(joint, row, 0.001).endswith("0.01 for all cells of one smoothed detector together")


def test_images_yet_to_come_are_spoken_of_by_the_population_alone(run, synthetic, tmp_path) -> None:
    assert "not of images yet to come" in which_images(run)
    found = of_kind(run, "population")
    assert "expected on further images" in which_images(found)
    assert "yet to come" not in which_images(found)
    assert "Rows without noise" not in which_images(found)
    plain = synthetic.run(tmp_path / "plain")
    both = replace(found, conditions=(*found.conditions, *plain.conditions))
    assert "Rows without noise speak of these test images alone." in which_images(both)
