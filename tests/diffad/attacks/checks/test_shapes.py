"""The shape of the loss makes no difference to a sound attack, and exposes one that follows a poor one."""

from __future__ import annotations

import broken
import pytest
import torch

from diffad.attacks import attack
from diffad.attacks.checks.case import FULL, SMALL, Case
from diffad.attacks.checks.shapes import check_shapes

IMAGES, LABELS = broken.images(), broken.labels()


def case_of(detector, **options) -> Case:
    found = attack(detector, IMAGES, LABELS, norm="l2", eps=0.2, steps=10, **options)
    return Case.of(detector, IMAGES, LABELS, found, SMALL, **options)


def test_a_surrogate_that_misses_most_of_the_gain_is_exposed_by_the_score():
    """The trap of attacking the distance to the mean: most of its gradient points elsewhere."""
    weights = torch.randn(broken.SHAPE, generator=torch.Generator().manual_seed(2))

    def elsewhere(images: torch.Tensor) -> torch.Tensor:
        return (images * weights).flatten(1).sum(1)

    sound = broken.Sound()
    outcome = check_shapes(case_of(sound, objective=elsewhere), SMALL)
    assert outcome.failed
    assert outcome.value > 0.5
    assert "score" in outcome.detail


def test_a_saturated_loss_is_exposed_too():
    sound = broken.Sound()
    outcome = check_shapes(case_of(sound, objective=broken.Saturated().score), SMALL)
    assert outcome.failed


def test_surrogates_that_the_detector_offers_are_tried():
    class Offering(broken.Sound):
        def surrogates(self):
            return {"squared": lambda images: broken.Sound().score(images).square()}

    outcome = check_shapes(case_of(Offering()), SMALL)
    assert outcome.passed
    assert outcome.value == pytest.approx(0.0, abs=1e-4)
    assert "squared" in outcome.detail
    follows = check_shapes(case_of(Offering(), objective="squared"), SMALL)
    assert follows.passed
    assert "score, log" in follows.detail


def test_scores_between_0_and_1_have_a_logit_in_the_full_budget():
    sound = broken.Sound()
    found = attack(sound, IMAGES, LABELS, norm="l2", eps=0.2, steps=10)
    assert "logit" in check_shapes(Case.of(sound, IMAGES, LABELS, found, FULL), FULL).detail
    assert "logit" not in check_shapes(Case.of(sound, IMAGES, LABELS, found, SMALL), SMALL).detail
