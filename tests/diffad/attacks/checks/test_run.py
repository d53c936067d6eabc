"""A sound detector passes every check; each broken twin is caught by those that look for its fault."""

from __future__ import annotations

import broken
import numpy as np
import pytest
import torch

from certify import SmoothedDetector
from certify.checks import InputError
from diffad.attacks import AttackResult, attack
from diffad.attacks.checks import CHECKS, CheckOutcome, failed_mandatory, run_checks

MANDATORY = {
    "eps_zero",
    "eps_sweep",
    "floor",
    "black_boxes",
    "zero_gradients",
    "gradient_direction",
    "batches",
}


def attacked(detector: object, **options: object) -> AttackResult:
    chosen = {"norm": "l2", "eps": 0.2, "steps": 20, **options}
    return attack(detector, broken.images(), broken.labels(), **chosen)


def checked(detector: object, *only: str, **options: object) -> dict[str, CheckOutcome]:
    found = attacked(detector, **options)
    outcomes = run_checks(detector, broken.images(), broken.labels(), found, only=only or None)
    return {outcome.name: outcome for outcome in outcomes}


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.2), ("linf", "16/255")])
def test_a_sound_detector_passes_every_check(norm, eps):
    outcomes = checked(broken.Sound(), norm=norm, eps=eps)
    assert list(outcomes) == list(CHECKS)
    assert [outcome.sentence for outcome in outcomes.values() if not outcome.passed] == []
    assert {name for name, outcome in outcomes.items() if outcome.mandatory} == MANDATORY
    assert failed_mandatory(outcomes.values()) == []


@pytest.mark.parametrize(
    ("twin", "names"),
    [
        (broken.Rounded, ["floor", "black_boxes", "zero_gradients", "saturation"]),
        (broken.StraightThrough, ["gradient_direction", "saturation"]),
        (broken.Saturated, ["zero_gradients", "saturation"]),
        (broken.RandomResize, ["eps_zero", "determinism", "batches"]),
        (broken.CutGradient, ["floor", "black_boxes", "gradient_direction"]),
        (broken.Coupled, ["batches"]),
        (broken.Reseeding, ["determinism"]),
    ],
)
def test_a_broken_twin_is_caught(twin, names):
    outcomes = checked(twin(), *names)
    assert [outcome.sentence for outcome in outcomes.values() if not outcome.failed] == []
    assert set(failed_mandatory(outcomes.values())) == MANDATORY & set(names)


def test_a_smoothed_detector_is_checked_by_few_draws_of_its_own():
    smoothed = SmoothedDetector(broken.Sound(), 0.25, "input", n=1000, batch_size=250)
    images, labels = broken.images(), broken.labels()
    found = attack(smoothed, images, labels, norm="l2", eps=0.4, steps=12, eot=4)
    outcomes = run_checks(smoothed, images, labels, found, only=["eps_zero", "zero_gradients", "batches"])
    assert [outcome.passed for outcome in outcomes] == [True] * 3
    (direction,) = run_checks(smoothed, images, labels, found, only=["gradient_direction"])
    assert direction.passed
    assert direction.value == pytest.approx(1.0, abs=1e-6)


def test_what_no_radius_changes_is_taken_over():
    sound = broken.Sound()
    found = attacked(sound)
    known = [CheckOutcome("batches", False, 7.0, "from another radius", True)]
    known.append(CheckOutcome("zero_gradients", False, 7.0, "from another radius", True))
    only = ["zero_gradients", "batches"]
    zero, batches = run_checks(sound, broken.images(), broken.labels(), found, known=known, only=only)
    assert zero.value == 0.0
    assert batches == known[0]


def test_a_score_without_gradients_is_checked_as_far_as_possible():
    """A black box on a piecewise constant score: what needs gradients says so, the rest is checked."""

    def trees(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return (images > 0.5).double().flatten(1).sum(1) + 0.001 * broken.Sound().score(images).double()

    outcomes = checked(trees, method="square", steps=100)
    skipped = {name for name, outcome in outcomes.items() if outcome.passed is None}
    assert {"zero_gradients", "gradient_direction", "black_boxes", "iteration", "shapes"} <= skipped
    assert outcomes["eps_zero"].passed
    assert outcomes["batches"].passed


def test_the_mandatory_ones_are_those_of_the_small_budget_and_no_others():
    sound, images, labels = broken.Sound(), broken.images(), broken.labels()
    found = attacked(sound)
    small = run_checks(sound, images, labels, found)
    few = run_checks(sound, images, labels, found, "mandatory")
    assert few == [one for one in small if one.mandatory]
    assert 0 < len(few) < len(small)


def test_bad_requests_are_refused_in_one_line():
    sound, images, labels = broken.Sound(), broken.images(), broken.labels()
    found = attacked(sound)
    with pytest.raises(InputError, match="only: got 'S1'"):
        run_checks(sound, images, labels, found, only=["S1"])
    with pytest.raises(InputError, match="allowed are mandatory, small, full"):
        run_checks(sound, images, labels, found, "none")
    with pytest.raises(InputError, match="eps 0"):
        run_checks(sound, images, labels, attacked(sound, eps=0.0))
    with pytest.raises(InputError, match="other images or labels"):
        run_checks(sound, images, 1 - np.asarray(labels), found)
    one_class = attack(sound, images[:3], [0, 0, 0], norm="l2", eps=0.1, steps=2)
    with pytest.raises(InputError, match="one class only"):
        run_checks(sound, images[:3], [0, 0, 0], one_class)
