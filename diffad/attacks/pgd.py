"""Projected gradient ascent on an anomaly score (Madry et al., ICLR 2018), keeping the best point of all."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from torch import Tensor

from certify.checks import InputError, check_choice
from diffad.attacks.search import Search

Schedule: TypeAlias = Literal["cosine", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "constant")


def step_sizes(eps: float, steps: int, schedule: str) -> list[float]:
    """Return the length of each step.

    `constant`: 2.5 * eps / steps, the rule of the literature. `cosine`: from 0.25 * eps down to 0; below 19
    steps it starts larger, so that the sum of all steps is never under 2.5 * eps and one step is FGSM.
    At eps = 0 there is nowhere to go, and no step.
    """
    check_choice(schedule, SCHEDULES, "schedule")
    if steps < 1:
        raise InputError(f"steps: got {steps}, need at least 1")
    if eps == 0:
        return []
    if schedule == "constant":
        return [2.5 * eps / steps] * steps
    first = eps * max(0.25, 5.0 / (steps + 1))
    return [first * 0.5 * (1.0 + math.cos(math.pi * step / steps)) for step in range(steps)]


def cosine_pgd(search: Search, steps: int) -> None:
    """Ascend with the cosine schedule: what to use when one attack has to do."""
    ascend(search, search.start, step_sizes(search.threat.eps, steps, "cosine"))


def constant_pgd(search: Search, steps: int) -> None:
    """Ascend with the constant step of the literature; the spec's toy shows it stuck where the cosine is not."""
    ascend(search, search.start, step_sizes(search.threat.eps, steps, "constant"))


def ascend(search: Search, points: Tensor, sizes: list[float], first: int = 0) -> Tensor:
    """Return the last of the points (b, c, h, w) that steps of these sizes lead to from `points`.

    `first` numbers the first gradient within the attack, which keys its noise.
    """
    for step, size in enumerate(sizes, first):
        _, gradient = search.gradient(points, step)
        points = search.threat.project(points + size * search.threat.ascent(gradient), search.clean)
    search.offer(points)
    return points
