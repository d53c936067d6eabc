"""Checks of the attack itself on scores whose worst case is known: it must reach this, no less and no more.

They need no detector of the user's: what is checked is the method at its budget. The last one checks the checks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from certify.metrics import auroc
from certify.types import ScoreBounds, ScoreFunction
from diffad.attacks.attack import attack
from diffad.attacks.checks.case import SMALL, Budget, Case
from diffad.attacks.checks.gradient import check_gradient_direction, check_zero_gradients
from diffad.attacks.checks.outcome import CheckOutcome, not_applicable
from diffad.attacks.checks.rivals import check_black_boxes
from diffad.attacks.checks.scores import check_determinism, check_saturation
from diffad.attacks.methods import ATTACKS
from diffad.attacks.result import AttackResult
from diffad.attacks.search import Material

SHAPE = (1, 4, 4)
COUNT = 8  # images of a control, half of them anomalous
_REACH = 0.01
_NEAR, _FAR = 0.2, 0.4  # distances of normals and anomalies to the nearest prototype
_COLLAPSE = 0.05

Checks: TypeAlias = tuple[Callable[[Case, Budget], CheckOutcome], ...]


def check_closed_form(case: Case, budget: Budget) -> CheckOutcome:
    """Attack a linear score far from the box: eps times the dual norm of the weights, to 1 %.

    value: the largest shortfall of an image, as a share of that.
    """
    if reason := _without_control(case):
        return not_applicable("closed_form", reason)
    weights, eps = _normal(0, SHAPE), 0.1
    images = 0.5 + 0.1 * (_uniform(1, COUNT) - 0.5)
    found = _attack(case, lambda points: (points * weights.to(points)).sum((1, 2, 3)), images, eps)
    best = eps * float(weights.norm() if case.result.norm == "l2" else weights.abs().sum())
    gains = np.abs(found.scores - found.clean_scores)
    shortfall = float((1.0 - gains / best).max())
    detail = "largest shortfall of the attack on a linear score, as a share of the closed-form optimum"
    return CheckOutcome("closed_form", shortfall <= _REACH, shortfall, detail)


def check_controls(case: Case, budget: Budget) -> CheckOutcome:
    """Attack the distance to the nearest of four prototypes: it must fall at a large radius and stand at a small one.

    Normals lie within distance .2, anomalies from .385 to .4. Within L2 .05 the AUROC is 1 whatever anybody does,
    since the distance is 1-Lipschitz; within .4 an anomaly can reach its prototype. In Linf the small radius is
    .05 / sqrt(pixels).
    value: the AUROC left at the large radius, or the loss at the small one, if that is more.
    """
    if reason := _without_control(case):
        return not_applicable("controls", reason)
    images, prototypes = prototype_images()
    small = 0.05 if case.result.norm == "l2" else 0.05 / math.sqrt(images[0].numel())
    aurocs = [_auroc(_attack(case, nearest_distance(prototypes), images, eps)) for eps in (small, _FAR)]
    value = max(aurocs[1], 1.0 - aurocs[0])
    detail = f"AUROC {aurocs[1]:.2f} on a control that must fall (0) and {aurocs[0]:.2f} on one that must stand (1)"
    return CheckOutcome("controls", value <= _COLLAPSE, value, detail)


def check_masked_controls(case: Case, budget: Budget) -> CheckOutcome:
    """Attack scores that are masked on purpose: for each of them some check must fire; value: for how many none did."""
    return masked_outcome(MASKED)


def masked_outcome(
    masked: dict[str, tuple[Callable[[ScoreFunction], ScoreFunction], Checks]],
) -> CheckOutcome:
    """Return the outcome on the given masks of the distance to the nearest prototype."""
    images, prototypes = prototype_images()
    silent = []
    for name, (mask, checks) in masked.items():
        score = mask(nearest_distance(prototypes))
        found = attack(score, images, _labels(), norm="l2", eps=0.2, method="pgd", steps=10)
        small = replace(SMALL, queries=100)
        case = Case.of(score, images, _labels(), found, small)
        if not any(check(case, small).failed for check in checks):
            silent.append(name)
    detail = f"masked controls that no check noticed, of {', '.join(masked)}"
    return CheckOutcome("masked_controls", not silent, float(len(silent)), detail)


# ---- the masks


def rounded(score: ScoreFunction) -> ScoreFunction:
    """Round the score: a gradient that is zero everywhere."""
    return lambda points: torch.round(20 * score(points)) / 20


def saturated(score: ScoreFunction) -> ScoreFunction:
    """Squash the score until float32 has no digits left."""
    return lambda points: torch.sigmoid(500 * (score(points) - 0.05))


def resized(score: ScoreFunction) -> ScoreFunction:
    """Shift the image at random before it is scored, from the global generator."""

    def shifted(points: Tensor) -> Tensor:
        moves = torch.randint(0, 2, (2,))
        return score(torch.roll(points, tuple(moves.tolist()), dims=(2, 3)))

    return shifted


def detached(score: ScoreFunction) -> ScoreFunction:
    """Replace the gradient by one that has nothing to do with the score."""

    def cut(points: Tensor) -> Tensor:
        misleading = torch.sin(1000 * points).flatten(1).sum(1)
        return score(points.detach()) + (misleading - misleading.detach())

    return cut


MASKED: dict[str, tuple[Callable[[ScoreFunction], ScoreFunction], Checks]] = {
    "rounded": (rounded, (check_zero_gradients, check_black_boxes)),
    "saturated": (saturated, (check_zero_gradients, check_saturation)),
    "randomly shifted": (resized, (check_determinism,)),
    "detached": (detached, (check_gradient_direction,)),
}


# ---- the controls


def prototype_images() -> tuple[Tensor, Tensor]:
    """Return images (8, 1, 4, 4), normals near a prototype and anomalies farther off, and the prototypes (4, ...)."""
    prototypes = 0.35 + 0.3 * _uniform(2, 4).round()
    away = _normal(3, (COUNT, *SHAPE))
    away = away / away.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    distance = torch.where(_labels() == 0, _NEAR, _FAR) - 0.005 * (torch.arange(COUNT) % 4)  # no two alike
    return prototypes[torch.arange(COUNT) % 4] + distance.view(-1, 1, 1, 1) * away, prototypes


def nearest_distance(prototypes: Tensor) -> ScoreFunction:
    """Return the distance to the nearest prototype as a score, 1-Lipschitz in L2."""

    def score(points: Tensor) -> Tensor:
        differences = points[:, None] - prototypes.to(points)[None]
        distances: Tensor = torch.linalg.vector_norm(differences.flatten(2), dim=2)
        return distances.amin(1)

    return score


def _without_control(case: Case) -> str:
    if not case.by_gradients:
        return f"the attack {case.method!r} uses scores alone; its budget need not suffice for a closed form"
    if case.method in ATTACKS and "sources" in ATTACKS[case.method].material:
        return f"the attack {case.method!r} is crafted on other detectors"
    return ""


def _attack(case: Case, score: ScoreFunction, images: Tensor, eps: float) -> AttackResult:
    """Attack a control in the way of the case: its method and budget, without what it knows of its detector."""
    own: dict[str, Any] = {key: case.settings[key] for key in ("method", "steps", "restarts", "seed")}
    norm = case.result.norm
    return attack(score, images, _labels(), norm=norm, eps=eps, material=Material(), **own)


def _auroc(found: AttackResult) -> float:
    return float(auroc(found.bounds(), found.labels, "both", ScoreBounds.exact(found.clean_scores)))


def _labels() -> Tensor:
    return torch.arange(COUNT) // (COUNT // 2)


def _uniform(seed: int, count: int) -> Tensor:
    return torch.rand((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
