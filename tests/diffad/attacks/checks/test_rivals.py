"""Rivals that should lose, and attacks that lose to them."""

from __future__ import annotations

from dataclasses import replace

import broken
import numpy as np
import pytest
import torch

from diffad.attacks import Material, attack
from diffad.attacks.checks.case import FULL, SMALL, Case
from diffad.attacks.checks.rivals import (
    check_black_boxes,
    check_doubling,
    check_iteration,
    check_order,
    check_trace,
)

IMAGES, LABELS = broken.images(), broken.labels()
CHECKS = (check_iteration, check_doubling, check_order, check_black_boxes, check_trace)


def weakened(share: float, **options) -> Case:
    """An attack on the sound detector that reached a share of what it could."""
    sound = broken.Sound()
    found = attack(sound, IMAGES, LABELS, **{"norm": "l2", "eps": 0.2, "steps": 20, **options})
    scores = found.clean_scores + share * (found.scores - found.clean_scores)
    return Case.of(sound, IMAGES, LABELS, replace(found, scores=scores), SMALL)


@pytest.mark.parametrize("check", CHECKS)
def test_each_passes_on_the_whole_attack(check):
    assert check(weakened(1.0), SMALL).passed


@pytest.mark.parametrize("check", [check_iteration, check_doubling, check_order, check_black_boxes])
def test_each_fires_on_an_attack_that_reached_little(check):
    assert check(weakened(0.05), SMALL).failed


def test_black_boxes_say_who_won_and_transfer_counts():
    case = weakened(0.05)
    transfer = replace(
        case, settings={**case.settings, "material": Material(sources={"twin": broken.Sound().score})}
    )
    outcome = check_black_boxes(transfer, SMALL)
    assert outcome.value == 1.0
    assert "transfer 1" in outcome.detail
    assert "transfer" not in check_black_boxes(case, SMALL).detail


def test_a_single_step_has_its_restarts_doubled():
    outcome = check_doubling(weakened(1.0, method="fgsm", steps=None), SMALL)
    assert outcome.detail.endswith("between 1 steps and 1 restarts, and 2 restarts")


def test_the_full_budget_doubles_and_the_small_one_looks_at_the_last_doubling():
    case = weakened(1.0)
    assert check_doubling(case, SMALL).detail.endswith("and 10 steps and 1 restarts")
    assert check_doubling(case, FULL).detail.endswith("and 40 steps and 2 restarts")


def test_a_trace_that_falls_or_still_rises_fires():
    case = weakened(1.0)
    sign = np.where(LABELS.numpy() == 0, 1.0, -1.0)[:, None]
    still = replace(case, result=replace(case.result, trace=sign * np.linspace(0, 1, 20) ** 3))
    outcome = check_trace(still, SMALL)
    assert outcome.failed
    assert outcome.value > 0.2
    falling = replace(case, result=replace(case.result, trace=sign * np.linspace(1, 0, 20)))
    assert check_trace(falling, SMALL).failed
    assert check_trace(replace(case, result=replace(case.result, trace=None)), SMALL).passed is None


def test_noise_is_ordered_below_a_step_on_a_blind_gradient_only_if_it_is():
    blind = broken.CutGradient()
    found = attack(blind, IMAGES, LABELS, norm="l2", eps=0.2, steps=3)
    assert check_order(Case.of(blind, IMAGES, LABELS, found, SMALL), SMALL).failed


def test_a_score_without_gradients_leaves_no_rival_by_gradients():
    def trees(images: torch.Tensor) -> torch.Tensor:
        return (images > 0.5).float().flatten(1).sum(1)

    found = attack(trees, IMAGES, LABELS, norm="linf", eps=0.1, method="square", steps=20)
    case = Case.of(trees, IMAGES, LABELS, found, SMALL)
    for check in (check_iteration, check_order, check_black_boxes):
        assert check(case, SMALL).passed is None


def test_the_small_budget_does_not_repeat_the_effort_of_a_large_attack():
    case = weakened(1.0, steps=200, restarts=4)
    assert check_doubling(case, SMALL).detail.endswith(
        "between 200 steps and 4 restarts, and 50 steps and 2 restarts"
    )
    queries = weakened(1.0, method="square", steps=200)
    assert check_doubling(queries, SMALL).detail.endswith("and 100 steps and 1 restarts")
