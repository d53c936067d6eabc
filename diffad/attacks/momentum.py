"""Momentum iterative FGSM (Dong et al., CVPR 2018), whose points transfer to other detectors better than PGD's."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffad.attacks.search import Search
from diffad.attacks.threat import ThreatModel

DECAY = 1.0  # of the momentum, as in the paper


def momentum_pgd(search: Search, steps: int) -> None:
    """Ascend along the running sum of the gradients; every point visited is a candidate."""
    points = momentum_ascent(
        lambda points, step: search.gradient(points, step)[1],
        search.threat,
        search.start,
        search.clean,
        steps,
    )
    search.offer(points)


def momentum_ascent(
    gradient: Callable[[Tensor, int], Tensor],
    threat: ThreatModel,
    start: Tensor,
    clean: Tensor,
    steps: int,
) -> Tensor:
    """Return the last of `steps` points (b, c, h, w) along g <- DECAY g + gradient / |gradient|_1.

    Each step is eps / steps long, so the boundary is reached when all of them agree.
    """
    points, momentum = start, torch.zeros_like(start)
    for step in range(steps):
        momentum = DECAY * momentum + unit_sum(gradient(points, step))
        points = threat.project(points + threat.eps / steps * threat.ascent(momentum), clean)
    return points


def unit_sum(gradient: Tensor) -> Tensor:
    """Return gradients divided by the sum of their absolute entries; zero stays zero.

    Dividing by the largest entry first keeps gradients usable that are nearly too small for float32.
    """
    flat = gradient.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(largest > 0, largest, 1.0)
    total = scaled.abs().sum(1, keepdim=True)
    return (scaled / torch.where(total > 0, total, 1.0)).view_as(gradient)
