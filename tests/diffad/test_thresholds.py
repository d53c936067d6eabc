"""Thresholds from held-out normals: the plain quantile, and the conformal one that bounds false alarms under attack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certify.certificate import certify_scores, lipschitz_bounds
from certify.checks import InputError
from certify.sums import certify_sum
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.pixel_nn import PixelNN
from diffad.data import load_data
from diffad.evaluation import certify_split
from diffad.levels import smooth_levels
from diffad.plan import Plan, smooth
from diffad.thresholds import calibrate, conformal_threshold, quantile_threshold

PLAN = Plan(
    smoothing="reference",
    sigma=0.5,
    radii=(0.1,),
    n=100,
    batch_size=50,
    quantile=0.75,
    threshold="conformal",
    threshold_radius=0.1,
)


@pytest.fixture(scope="module")
def split():
    return load_data("digits", normal_class="8", resolution=8, limit=3)


@pytest.fixture(scope="module")
def closed_form(split):
    return ClosedForm(draws=3).fit(split.train.images)


def test_it_is_the_rank_among_the_upper_bounds_of_normals(closed_form, split) -> None:
    normals = split.calibration.images
    smoothed = smooth(closed_form, PLAN)
    found = calibrate(smoothed, normals, PLAN)
    draws = smoothed.noisy_scores(normals, range(17), "calibrate")
    upper = certify_scores(draws, 0.5, [0.1], PLAN.alpha_per_image, 1.0).upper[0]
    assert found == smoothed.threshold_ == np.sort(upper)[13]  # ceil(18 * 0.75) = 14
    plain = replace(PLAN, threshold="quantile", threshold_radius=None)
    assert found > calibrate(smooth(closed_form, plain), normals, plain)
    conditions, _ = certify_split(closed_form, split, PLAN)
    assert {c.threshold for c in conditions} == {found}


def test_a_score_without_noise_takes_its_lipschitz_bounds(split) -> None:
    detector = PixelNN().fit(split.train.images)
    plan = replace(PLAN, smoothing="none", sigma=None)
    upper = lipschitz_bounds(*detector.score_interval(split.calibration.images), 1.0, [0.1]).upper[0]
    assert calibrate(smooth(detector, plan), split.calibration.images, plan) == np.sort(upper)[13]


def test_a_sum_over_levels_takes_the_bounds_of_the_sum(closed_form, split) -> None:
    plan = replace(PLAN, sigma=1.0, sigmas=(0.5, 1.0))
    conditions, _ = certify_split(closed_form, split, plan)
    smoothed = smooth_levels(closed_form, plan)
    draws = smoothed.noisy_scores(split.calibration.images, range(17), "calibrate")
    upper = certify_sum(draws, smoothed.terms, [0.1], plan.alpha_per_image).upper[0]
    assert conditions[0].threshold == np.sort(upper)[13]


def test_no_attack_on_exchangeable_normals_is_flagged_more_often_than_said() -> None:
    """A linear score of norm 1: 4000 fresh normals, attacked at their worst, against 40 sets of 99 others."""
    rng = np.random.default_rng(0)
    plan = replace(PLAN, quantile=0.9, n=200)
    share = []
    for _ in range(40):
        centres = rng.normal(size=99)
        draws = centres[:, None] + 0.5 * rng.standard_normal((99, 200))
        upper = certify_scores(draws, 0.5, [0.1], plan.alpha_per_image).upper[0]
        worst = rng.normal(size=100) + 0.1  # an attack of size r lifts a linear score of norm 1 by r
        share.append(np.mean(worst > conformal_threshold(upper, plan)))
    assert np.mean(share) <= 0.1 + plan.alpha_per_image
    assert np.mean(share) > 0.0


def test_the_rank_is_that_of_the_decimal_number_meant() -> None:
    values = np.arange(99.0)
    plan = replace(PLAN, quantile=0.9)
    assert (
        quantile_threshold(values, plan) == conformal_threshold(values, plan) == 89.0
    )  # 100 * 0.9 = 90, no more


def test_what_would_flag_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="3 of 10 held-out normals have no finite upper bound"):
        conformal_threshold(np.r_[np.zeros(7), np.full(3, np.inf)], PLAN)
    with pytest.raises(InputError, match="need at least 3"):
        conformal_threshold(np.zeros(2), PLAN)
    for change in ({"threshold_radius": None}, {"threshold": "quantile"}):
        with pytest.raises(InputError, match="goes with --threshold_radius"):
            replace(PLAN, **change)
