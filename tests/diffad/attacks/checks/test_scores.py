"""Checks of the score itself, without an attack."""

from __future__ import annotations

import broken
import pytest
import torch

from certify import SmoothedDetector
from diffad.attacks import attack
from diffad.attacks.checks.case import SMALL, Case
from diffad.attacks.checks.scores import check_batches, check_determinism, check_saturation

IMAGES, LABELS = broken.images(), broken.labels()


def case_of(detector, images=IMAGES) -> Case:
    return Case.of(
        detector, images, LABELS, attack(detector, images, LABELS, norm="l2", eps=0.1, steps=2), SMALL
    )


def test_equal_images_are_no_saturation():
    twice = IMAGES.clone()
    twice[1] = twice[0]
    assert check_saturation(case_of(broken.Sound(), twice), SMALL).value == 0.0
    assert check_saturation(case_of(broken.Saturated()), SMALL).value == 1.0


def test_determinism_measures_how_far_repeats_lie_apart_and_leaves_the_generators_alone():
    case = case_of(broken.RandomResize())
    torch.manual_seed(4)
    before = torch.get_rng_state()
    outcome = check_determinism(case, SMALL)
    assert outcome.failed
    assert outcome.value > 1e-3
    assert torch.equal(torch.get_rng_state(), before)
    seeded = check_determinism(case_of(broken.Reseeding()), SMALL)
    assert seeded.failed
    assert "global random state" in seeded.detail


def test_coupled_images_are_measured_in_units_of_the_score():
    outcome = check_batches(case_of(broken.Coupled()), SMALL)
    assert outcome.failed
    assert outcome.value > 0.1
    assert check_batches(case_of(broken.Sound()), SMALL).value < 1e-6


@pytest.mark.parametrize("check", [check_saturation, check_determinism, check_batches])
def test_keyed_noise_passes_them_all(check):
    smoothed = SmoothedDetector(broken.Sound(), 0.1, "input", n=100, batch_size=50)
    assert check(case_of(smoothed), SMALL).passed
