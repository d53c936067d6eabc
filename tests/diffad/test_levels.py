"""The sum over noise levels as a plan certifies it: the draws of its levels, added, at alpha shared among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from certify.certificate import certify_scores, percentile_scores
from certify.checks import InputError
from certify.smoothed_sum import level_seed
from diffad.attack_evaluation import attack_split
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.pixel_nn import PixelNN
from diffad.data import load_data
from diffad.evaluation import certify_split
from diffad.levels import level_plans, smooth_levels
from diffad.plan import Plan, baseline_plan, smooth

RADII = (0.1, 0.25)
PLAN = Plan(
    smoothing="reference",
    sigma=1.0,
    sigmas=(0.5, 1.0),
    radii=RADII,
    n=150,
    batch_size=50,
    alpha=0.01,
    alpha_per_image=0.004,
    seed=3,
)


@pytest.fixture(scope="module")
def split():
    return load_data("digits", normal_class="8", resolution=8, limit=4)


@pytest.fixture(scope="module")
def closed_form(split):
    return ClosedForm(draws=3).fit(split.train.images)


@pytest.fixture(scope="module")
def certified(closed_form, split):
    return certify_split(closed_form, split, PLAN)


@pytest.fixture(scope="module")
def draws(closed_form, split):
    """The certification draws of each level, made one by one."""
    return [smooth(closed_form, plan).noisy_scores(split.test.images, range(8)) for plan in level_plans(PLAN)]


def test_levels_draw_under_keys_of_their_own() -> None:
    levels = level_plans(replace(PLAN, compile=True))
    assert [(plan.sigma, plan.sigmas, plan.seed) for plan in levels] == [
        (0.5, (), level_seed(3, 0)),
        (1.0, (), level_seed(3, 1)),
    ]
    assert [plan.compile for plan in levels] == [True, False]  # one network, compiled once


def test_rows_are_the_sums_of_what_the_levels_certify(split, certified, draws) -> None:
    conditions, _ = certified
    assert [(c.condition, c.alpha_kind, c.radius) for c in conditions] == [
        ("clean", "", 0.0),
        *[("certified", kind, radius) for kind in ("total", "per_image") for radius in (0.0, *RADII)],
    ]
    assert {c.subject for c in conditions} == {
        (split.name, 8, "closed_form", "reference", "sum_sigma=0.5,1", 1.0)
    }
    np.testing.assert_allclose(
        conditions[0].bounds.lower, sum(percentile_scores(scores) for scores in draws), rtol=1e-12
    )
    for alpha, rows in ((0.01 / 8, conditions[1:4]), (0.004, conditions[4:])):
        parts = [
            certify_scores(scores, sigma, (0.0, *RADII), alpha / 2, 1.0)
            for scores, sigma in zip(draws, PLAN.sigmas, strict=True)
        ]
        for row, condition in enumerate(rows):
            assert condition.alpha == alpha
            np.testing.assert_allclose(condition.bounds.lower, parts[0].lower[row] + parts[1].lower[row])
            np.testing.assert_allclose(condition.bounds.upper, parts[0].upper[row] + parts[1].upper[row])


def test_radii_at_the_threshold_agree_with_the_per_image_bounds(certified) -> None:
    conditions, sizes = certified
    for condition in conditions[4:]:
        labels, threshold = condition.images.labels, condition.threshold
        right = np.where(labels == 1, condition.bounds.lower > threshold, condition.bounds.upper <= threshold)
        if condition.radius > 0:
            assert np.array_equal(sizes >= condition.radius, right)
    assert sizes.max() > 0


def test_the_threshold_is_the_rank_among_the_sums_of_normals(closed_form, split, certified) -> None:
    sums = smooth_levels(closed_form, PLAN).score(split.calibration.images, range(17), "calibrate")
    assert certified[0][0].threshold == np.sort(sums)[16]  # ceil(18 * 0.9) = 17


def test_each_level_keeps_its_draws_and_a_repeat_draws_nothing(
    closed_form, split, certified, tmp_path: Path, monkeypatch
) -> None:
    certify_split(closed_form, split, PLAN, store_folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sigma=0.5", "sigma=1"]
    assert (tmp_path / "sigma=1" / "calibrate" / "config.json").is_file()

    def refuse(*args):
        raise AssertionError("drew again")

    monkeypatch.setattr("certify.pool.gaussian_noise", refuse)
    again, sizes = certify_split(closed_form, split, PLAN, store_folder=tmp_path)
    np.testing.assert_array_equal(sizes, certified[1])
    for ours, known in zip(again, certified[0], strict=True):
        np.testing.assert_array_equal(ours.bounds.lower, known.bounds.lower)
        np.testing.assert_array_equal(ours.bounds.upper, known.bounds.upper)
    with pytest.raises(InputError, match="seed was"):
        certify_split(closed_form, split, replace(PLAN, seed=4), store_folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": (1.0, 0.5)}, "smallest first"),
        ({"sigmas": (0.5, 0.5, 1.0)}, "different levels"),
        ({"sigmas": (0.5, 2.0)}, "smallest first"),  # sigma is not the largest
        ({"sigmas": (-1.0, 1.0)}, "sigma"),
        ({"adaptive": True}, "one noise level only"),
        ({"smoothing": "none"}, "adds no noise"),
    ],
)
def test_plans_that_mean_nothing_are_refused(change, message) -> None:
    with pytest.raises(InputError, match=message):
        replace(PLAN, **change)


def test_the_smallest_level_at_its_share_of_alpha_reaches_least_far() -> None:
    assert PLAN.weakest(8) == (0.01 / 8 / 2, 0.5)
    assert replace(PLAN, sigmas=()).weakest(8) == (0.01 / 8, 1.0)
    assert PLAN.noise == "0.5 + 1"


def test_network_free_rows_are_summed_too_unless_they_need_no_noise(closed_form) -> None:
    assert baseline_plan(closed_form, PLAN).sigmas == (0.5, 1.0)
    assert baseline_plan(PixelNN(), PLAN) == replace(PLAN, smoothing="none", sigma=None, sigmas=())


def test_an_attack_on_the_sum_stays_inside_its_certificate(closed_form, split, certified) -> None:
    options = {"norm": "l2", "radii": [0.25], "steps": 3, "eot": 2, "seed": 0}
    clean, attacked = attack_split(closed_form, split, PLAN, **options)
    proved = certified[0][3]  # all images of the cell at radius 0.25
    assert clean.subject == attacked.subject == proved.subject
    assert (attacked.bounds.upper >= clean.bounds.upper).all()
    assert (attacked.bounds.upper > attacked.bounds.lower).any()
    assert (attacked.bounds.lower >= proved.bounds.lower).all()
    assert (attacked.bounds.upper <= proved.bounds.upper).all()
