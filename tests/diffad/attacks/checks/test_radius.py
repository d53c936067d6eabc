"""Radius 0, growing radii and the whole box."""

from __future__ import annotations

from dataclasses import replace

import broken
import numpy as np
import pytest

from certify.checks import InputError
from certify.smoothing import SmoothedDetector
from diffad.attacks import attack
from diffad.attacks.checks.case import SMALL, Case
from diffad.attacks.checks.radius import (
    check_eps_zero,
    check_floor,
    images_shown,
    known_scores,
    sweep_outcome,
    told_apart,
    within_reach,
)

IMAGES, LABELS = broken.images(), broken.labels()


def case_of(detector, **options) -> Case:
    chosen = {"norm": "l2", "eps": 0.1, "steps": 20, **options}
    references = chosen.pop("references", None)
    return Case.of(
        detector, IMAGES, LABELS, attack(detector, IMAGES, LABELS, **chosen), SMALL, references=references
    )


def test_clean_scores_that_are_not_those_of_the_detector_are_noticed():
    case = case_of(broken.Sound())
    assert check_eps_zero(case, SMALL).value == 0.0
    shifted = replace(case.result, clean_scores=case.result.clean_scores + 0.01)
    outcome = check_eps_zero(replace(case, result=shifted), SMALL)
    assert outcome.failed
    assert outcome.value == pytest.approx(0.01 / (case.result.clean_scores.max() + 0.01), rel=1e-4)


def test_a_sweep_out_of_order_fires_and_names_the_side():
    case = case_of(broken.Sound())
    curve = [case.attack(eps=eps) for eps in (0.05, 0.1, 0.2)]
    assert sweep_outcome(case, curve).passed
    swapped = [curve[0], replace(curve[2], eps=0.1), replace(curve[1], eps=0.2)]
    outcome = sweep_outcome(case, swapped)
    assert outcome.failed
    assert outcome.value > 0.3
    with pytest.raises(InputError, match="ascending"):
        sweep_outcome(case, curve[::-1])


def test_the_floor_is_the_worst_of_references_images_and_greys():
    sound = broken.Sound()
    case = case_of(sound, references=sound.prototype[None])
    known = known_scores(case, images_shown(case))
    assert len(known) == 1 + 11 + len(case.images)
    assert known.min() == 0.0  # the prototype itself
    assert check_floor(case, SMALL).passed


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_saturated_score_stays_above_the_floor_that_a_reference_shows(norm):
    """An image of score 0 exists, and the attacker may show it; the gradient does not lead there."""
    saturated = broken.Saturated()
    case = case_of(saturated, norm=norm, references=saturated.prototype[None])
    outcome = check_floor(case, SMALL)
    assert outcome.failed
    assert outcome.value == pytest.approx(0.5)  # all scores are 1, where anomalies might have 0
    assert np.ptp(case.result.clean_scores) == 0.0


def test_under_noise_the_floor_is_what_the_worst_image_scores_in_place_of_each():
    """The extreme of many estimates is a lucky one: under the draws of another image the same image scores less."""

    def flat(images):
        return (20 * images).sin().mean((1, 2, 3))  # under noise all score 0, but for their draws

    smoothed = SmoothedDetector(flat, sigma=0.5, smoothing="input", n=20, batch_size=100)
    case = case_of(smoothed, method="feature_target", steps=2, eot=2, references=IMAGES[:4])
    shown = images_shown(case)
    known = known_scores(case, shown)
    floor = within_reach(case, shown, known)
    raised = case.labels == 0
    best = shown[np.where(raised, known.argmax(), known.argmin())]
    np.testing.assert_array_equal(floor, case.target.scores(best, case.names, "evaluate"))
    assert floor[raised].mean() < known.max()
    assert floor[~raised].mean() > known.min()
    assert check_floor(case, SMALL).passed


def test_under_noise_an_image_counts_as_short_only_by_more_than_its_draws_can_tell():
    def rough(images):  # 0 under noise, but for their draws
        return (20 * images).sin().mean((1, 2, 3))

    smoothed = SmoothedDetector(rough, sigma=0.5, smoothing="input", n=20, batch_size=100)
    case = case_of(smoothed, method="noise", steps=2, eot=2)
    found = case.attack(eps=case.whole_box)
    sign = np.where(case.labels == 0, 1.0, -1.0)
    noise = np.std(
        case.target.scores(found.images, case.names, "select")
        - case.target.scores(found.images, case.names, "evaluate")
    )
    for short, counted in ((0.2, True), (20.0, False)):
        floor = found.scores + sign * short * noise
        expected = floor if counted else found.scores
        np.testing.assert_array_equal(told_apart(case, found, floor), expected)
    beyond = found.scores - sign * noise  # better than all that is known
    np.testing.assert_array_equal(told_apart(case, found, beyond), found.scores)


def test_without_noise_every_shortfall_counts():
    case = case_of(broken.Sound())
    floor = case.result.scores + np.where(case.labels == 0, 1e-9, -1e-9)
    np.testing.assert_array_equal(told_apart(case, case.result, floor), case.result.scores)


def test_noise_does_not_hide_a_gradient_that_leads_nowhere():
    """What a reference shows lies far beyond the draws of a saturated score."""
    saturated = broken.Saturated()
    smoothed = SmoothedDetector(saturated.score, sigma=0.01, smoothing="input", n=20, batch_size=100)
    case = case_of(smoothed, eot=2, steps=4, references=saturated.prototype[None])
    assert check_floor(case, SMALL).failed
