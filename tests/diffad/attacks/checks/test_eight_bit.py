"""Attacked images as files would keep them."""

from __future__ import annotations

import broken
import pytest
import torch

from diffad.attacks import attack
from diffad.attacks.checks.case import SMALL, Case
from diffad.attacks.checks.eight_bit import check_eight_bits, eight_bits
from diffad.attacks.threat import ThreatModel

IMAGES, LABELS = (broken.images() * 255).round() / 255, broken.labels()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 2.5 / 255), ("linf", 8 / 255), ("l2", 0.3)])
def test_rounded_points_stay_in_the_ball(norm, eps):
    threat = ThreatModel(norm, eps)
    points = threat.random_start(IMAGES, range(len(IMAGES)), seed=0, restart=1)
    rounded = eight_bits(points, IMAGES, threat)
    threat.check(rounded, IMAGES)
    off_grid = ((rounded * 255).round() / 255 - rounded).abs().flatten(1).amax(1)
    inside = threat.distance((points * 255).round() / 255, IMAGES) <= eps
    # in Linf, from images on the grid, always a grid point; in L2 wherever rounding stays in the ball
    assert (off_grid[inside] < 1e-6).all()
    if norm == "linf":
        assert off_grid.max() < 1e-6


def test_an_attack_of_whole_steps_survives_and_one_finer_than_the_grid_does_not():
    def case_of(detector, eps) -> Case:
        found = attack(detector, IMAGES, LABELS, norm="linf", eps=eps, steps=50)
        return Case.of(detector, IMAGES, LABELS, found, SMALL)

    survives = check_eight_bits(case_of(broken.Sound(), 24 / 255), SMALL)
    assert survives.passed
    assert survives.value == pytest.approx(0.0, abs=0.05)
    fine = check_eight_bits(case_of(broken.Grained(), 0.4 / 255), SMALL)
    assert fine.failed
    assert fine.value > 0.5
    assert torch.equal(eight_bits(IMAGES, IMAGES, ThreatModel("linf", 0.1)), IMAGES)
