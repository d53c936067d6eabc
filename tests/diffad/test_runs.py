from __future__ import annotations

import numpy as np
import pytest

from diffad.compare import compare_table
from diffad.order import check_order
from diffad.results import write_run
from diffad.runs import join_runs, parts_of
from diffad.sandwich import check_sandwich


@pytest.fixture
def run(tmp_path, synthetic):
    return synthetic.run(tmp_path / "run", detector="diffusion", smoothing="input")


def part(run, folder, kinds, command, **config):
    """The rows of these kinds under a manifest of one command with these options."""
    config = {"smoothing": "input", "sigma": 1.0, **config}
    entry = {**run.manifest["commands"][0], "command": command, "config": config}
    kept = [c for c in run.conditions if c.condition in kinds]
    return write_run(folder, {**run.manifest, "commands": [entry]}, kept)


@pytest.mark.parametrize(
    ("certify", "attack", "met"),
    [
        ({"percentile": 0.5}, {"percentile": 0.5}, 80),
        ({"percentile": 0.3}, {"percentile": 0.3}, 80),
        ({"percentile": 0.3}, {"percentile": 0.5}, 0),
        ({"percentile": 0.3}, {}, 0),
        ({}, {"percentile": 0.5}, 80),  # older manifests hold none, and mean the median
        ({"grid": True}, {}, 0),
        ({"grid": False}, {}, 80),
        ({"smoothing": "reference", "percentile": 0.3}, {"percentile": 0.3}, 80),  # a row beside another way
    ],
)
def test_percentiles_of_one_score_are_scores_of_their_own(run, tmp_path, certify, attack, met) -> None:
    proved = part(run, tmp_path / "c", ("certified", "clean"), "certify", **certify)
    tried = part(run, tmp_path / "a", ("attack",), "diffad attack", **attack)
    assert len(join_runs([proved, tried])) == (1 if met else 2)
    assert check_order([proved, tried]).scores == met
    assert check_sandwich([proved, tried]).unjudged == met
    both = [row for row in compare_table([proved, tried]) if row["certified"] and row["attacked"]]
    assert len(both) == (2 if met else 0)


def test_the_percentile_is_that_of_the_certificate_and_nothing_without_noise(
    run, tmp_path, synthetic
) -> None:
    proved = part(run, tmp_path / "c", ("certified", "clean"), "certify", percentile=0.3)
    assert proved.percentile(run.subjects[0]) == 0.3
    assert run.percentile(run.subjects[0]) == 0.5
    plain = synthetic.run(tmp_path / "plain")
    one = part(plain, tmp_path / "p", ("certified", "clean"), "certify", percentile=0.3)
    assert one.percentile(plain.subjects[0]) == 0.5
    assert list(parts_of(one)) == list(parts_of(part(plain, tmp_path / "q", ("clean",), "certify")))


def test_the_level_of_all_cells_is_known_where_the_options_divide_it(run, tmp_path) -> None:
    joint = part(run, tmp_path / "j", ("certified",), "certify", joint=True, alpha=0.01)
    assert (joint.joint_alpha, run.joint_alpha) == (0.01, None)


def test_the_conformal_rule_says_what_its_rate_is_an_average_of(run, tmp_path) -> None:
    rule = {"threshold": "conformal", "quantile": 0.9, "alpha_per_image": 0.001, "threshold_radius": 2 / 3}
    found = part(run, tmp_path / "t", ("certified",), "certify", **rule).threshold_rule
    assert found is not None
    assert found.startswith("conformal: further normals are flagged at a rate of at most 0.1 + 0.001 ")
    assert found.endswith("up to 0.666666, on average over calibration sets, by the true score")
    assert np.isclose(run.threshold(run.subjects[0]), 2.4)
