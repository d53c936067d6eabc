"""Controls with a known worst case; they judge the method, so broken methods must fail them."""

from __future__ import annotations

from dataclasses import replace

import broken
import numpy as np
import pytest
import torch

from diffad.attacks import ATTACKS, attack
from diffad.attacks.checks import controls
from diffad.attacks.checks.case import SMALL, Case
from diffad.attacks.checks.controls import (
    check_closed_form,
    check_controls,
    check_masked_controls,
    masked_outcome,
    nearest_distance,
    prototype_images,
)


def case_of(**options) -> Case:
    images, labels, sound = broken.images(), broken.labels(), broken.Sound()
    found = attack(sound, images, labels, **{"norm": "l2", "eps": 0.1, **options})
    return Case.of(sound, images, labels, found, SMALL)


def test_the_control_is_what_it_is_said_to_be():
    images, prototypes = prototype_images()
    assert images.min() >= 0
    assert images.max() <= 1
    distances = nearest_distance(prototypes)(images).numpy()
    np.testing.assert_allclose(distances, [0.2, 0.195, 0.19, 0.185, 0.4, 0.395, 0.39, 0.385], rtol=1e-5)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("method", ["pgd", "pgd_constant", "apgd", "momentum"])
def test_sound_methods_reach_the_known_worst_case(method, norm):
    case = case_of(method=method, norm=norm)
    assert check_closed_form(case, SMALL).passed
    assert check_controls(case, SMALL).passed


def test_a_method_that_goes_nowhere_fails_them(monkeypatch):
    case = case_of(method="pgd", steps=5)
    lazy = replace(ATTACKS["pgd"], run=lambda search, steps: search.offer(search.clean))
    monkeypatch.setitem(ATTACKS, "pgd", lazy)
    assert check_closed_form(case, SMALL).value == pytest.approx(1.0)
    assert check_controls(case, SMALL).failed


def test_a_method_that_leaves_the_ball_makes_the_standing_control_fall(monkeypatch):
    """The harness checks its points, so the ball itself has to be broken for this."""
    case = case_of(method="pgd", steps=5)
    honest = controls.attack
    monkeypatch.setattr(controls, "attack", lambda *args, eps, **options: honest(*args, eps=0.4, **options))
    outcome = check_controls(case, SMALL)
    assert outcome.failed
    assert outcome.value == pytest.approx(1.0)


def test_methods_without_gradients_have_no_closed_form_to_reach():
    case = case_of(method="square", steps=10)
    assert check_closed_form(case, SMALL).passed is None
    assert check_controls(case, SMALL).passed is None


def test_masked_controls_are_noticed_and_sound_ones_are_not():
    assert check_masked_controls(case_of(), SMALL).passed
    sound = {name: (lambda score: score, checks) for name, (_, checks) in controls.MASKED.items()}
    outcome = masked_outcome(sound)
    assert outcome.failed
    assert outcome.value == len(controls.MASKED)


def test_the_shifted_control_draws_from_the_global_generator():
    torch.manual_seed(0)
    score = controls.resized(lambda points: points[:, 0, 0, 0])
    points = torch.rand(1, *controls.SHAPE, generator=torch.Generator().manual_seed(0))
    assert len({float(score(points)) for _ in range(20)}) > 1
