"""Gradients that are zero, false, or a good likeness."""

from __future__ import annotations

from dataclasses import replace

import broken
import numpy as np
import pytest
import torch

from certify import SmoothedDetector
from diffad.attacks import attack
from diffad.attacks.checks.case import SMALL, Case
from diffad.attacks.checks.gradient import (
    check_gradient_direction,
    check_zero_gradients,
    gradient_cosines,
)

IMAGES, LABELS = broken.images(), broken.labels()
WEIGHTS = torch.ones(16)  # a global tensor, which nothing turns into float64


def case_of(detector, **options) -> Case:
    found = attack(detector, IMAGES, LABELS, **{"norm": "l2", "eps": 0.1, "steps": 5, **options})
    return Case.of(detector, IMAGES, LABELS, found, SMALL)


def test_cosines_are_one_for_a_true_gradient_and_below_for_a_false_one():
    points = IMAGES.double()
    sound = broken.Sound().double()
    np.testing.assert_allclose(gradient_cosines(sound.score, points), 1.0, atol=1e-8)
    cut = broken.CutGradient().double()
    assert (np.abs(gradient_cosines(cut.score, points)) < 0.9).all()
    opposite = gradient_cosines(lambda x: 2 * sound.score(x).detach() - sound.score(x), points)
    np.testing.assert_allclose(opposite, -1.0, atol=1e-8)
    flat = gradient_cosines(lambda x: 0.0 * x.flatten(1).sum(1), points)
    np.testing.assert_array_equal(flat, 1.0)


def test_a_float32_detector_is_measured_in_float64_and_left_in_float32():
    sound = broken.Sound()
    outcome = check_gradient_direction(case_of(sound), SMALL)
    assert outcome.value == pytest.approx(1.0, abs=1e-9)  # float32 differences would give 1e-3
    assert sound.prototype.dtype == torch.float32


def test_the_gradient_of_a_smoothed_score_is_measured_under_fixed_draws():
    smoothed = SmoothedDetector(broken.Sound(), 0.2, "input", n=50, batch_size=50)
    outcome = check_gradient_direction(case_of(smoothed, eot=4), SMALL)
    assert outcome.passed
    assert outcome.value > 0.999


def in_float32_only(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1) @ WEIGHTS


def test_a_score_that_refuses_float64_is_not_measured_and_says_so():
    outcome = check_gradient_direction(case_of(in_float32_only), SMALL)
    assert outcome.passed is None
    assert "float64" in outcome.detail


def test_the_share_of_zeros_is_that_of_the_attack_where_it_is_larger():
    case = case_of(broken.Sound())
    assert check_zero_gradients(case, SMALL).value == 0.0
    met = replace(case.whole, info={**case.whole.info, "zero_gradient_share": 0.02})
    assert check_zero_gradients(replace(case, whole=met), SMALL).failed
    members = {"pgd": {"zero_gradient_share": 0.5}}
    met = replace(case.whole, info={**case.whole.info, "members": members})
    assert check_zero_gradients(replace(case, whole=met), SMALL).value == 0.5


def test_the_surrogate_that_an_attack_follows_is_what_is_checked():
    sound, blind = broken.Sound(), broken.CutGradient()
    found = attack(sound, IMAGES, LABELS, norm="l2", eps=0.1, steps=5, objective=blind.score)
    assert check_gradient_direction(
        Case.of(sound, IMAGES, LABELS, found, SMALL, objective=blind.score), SMALL
    ).failed


def distance_to_the_nearest(images: torch.Tensor) -> torch.Tensor:
    """Zero, the least there is, with gradient zero, at two images that an attacker may show."""
    squared = (images[:, None] - IMAGES[:2]).flatten(2).square().sum(2).amin(1)
    return torch.where(squared > 0, squared.clamp_min(1e-12).sqrt(), 0.0 * squared)


def test_a_member_that_starts_where_nothing_is_left_to_gain_is_not_masked():
    case = case_of(distance_to_the_nearest, norm="linf", eps=1.0, method="ensemble")
    assert case.whole.info["members"]["feature_target"]["zero_gradient_share"] >= 0.5
    test = replace(case, images=case.images[2:], labels=case.labels[2:], names=case.names[2:])
    assert check_zero_gradients(test, SMALL).passed


def test_a_masked_detector_is_found_out_under_an_ensemble_too():
    assert check_zero_gradients(case_of(broken.Rounded(), method="ensemble"), SMALL).failed
    case = case_of(broken.Sound(), method="ensemble")
    members = {name: {"zero_gradient_share": 0.5} for name in ("apgd", "pgd", "feature_target")}
    members["square"] = {"zero_gradient_share": 0.0}  # which asks for none
    met = replace(case.whole, info={**case.whole.info, "members": members})
    assert check_zero_gradients(replace(case, whole=met), SMALL).value == 0.5
