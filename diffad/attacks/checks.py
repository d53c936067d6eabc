"""First sanity checks of an attack: signs that a high attacked score is the attack's failure, not robustness.

After Athalye et al. (ICML 2018) and Carlini et al. (2019). Each check returns what it measured, and decides
nothing: a caller shows a failed one beside the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_images
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.attack import pgd
from diffad.attacks.objective import GradientCount, directions, evaluate, score_gradient
from diffad.attacks.result import AttackResult
from diffad.attacks.target import score_batches
from diffad.attacks.threat import ThreatModel

_CHECK_SEED = 1  # directions and noise of the checks; any other than the attack's default


@dataclass(frozen=True)
class CheckOutcome:
    """The outcome of one check: `value` is what was measured, in the words of `detail`."""

    name: str
    passed: bool
    value: float
    detail: str


def check_eps_sweep(results: Sequence[AttackResult], *, tolerance: float = 1e-6) -> CheckOutcome:
    """Check that no image's score improves as eps grows; value: the largest improvement."""
    if len(results) < 2 or any(a.eps > b.eps for a, b in pairwise(results)):
        raise InputError("check_eps_sweep: need results of at least two radii, in ascending order")
    gains = np.stack([directions(result.labels) * result.scores for result in results])
    worst = float(np.max(-np.diff(gains, axis=0)))
    return CheckOutcome("eps_sweep", worst <= tolerance, worst, "largest improvement of a score as eps grows")


def check_floor(
    score: ScoreFunction,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    references: Float[Tensor, "m c h w"],
    *,
    tolerance: float = 0.02,
    **attack: Any,
) -> CheckOutcome:
    """Check that at Linf eps = 1, where every image may be shown, the attack reaches the floor.

    The floor of a score is the lowest (for anomalies; the highest for normals) of `references`, to which flat
    grey images are added. `attack` goes to `pgd`. value: the largest shortfall, in units of the spread of
    the references' scores, to be at most `tolerance`.
    """
    greys = torch.linspace(0, 1, 11).to(references).view(-1, 1, 1, 1).expand(-1, *references.shape[1:])
    known = score_batches(score, torch.cat([references, greys]), attack.get("batch_size", 64), images.device)
    result = pgd(score, images, labels, norm="linf", eps=1.0, **attack)
    sign = directions(result.labels)
    target = np.where(sign > 0, known.max(), known.min())
    spread = max(float(np.ptp(known)), np.finfo(np.float64).tiny)
    shortfall = float(np.max(sign * (target - result.scores)) / spread)
    detail = "largest distance to the floor at eps 1, in units of the references' spread"
    return CheckOutcome("floor", shortfall <= tolerance, shortfall, detail)


def gradient_cosines(
    score: ScoreFunction, images: Float[Tensor, "n c h w"], *, probes: int = 16, step: float = 1e-5
) -> FloatArray:
    """Return for each image the cosine (n,) between directional derivatives by autograd and by differences.

    `score` is evaluated in float64 (convert its module first) at central differences along `probes` random
    directions. An image whose derivatives are all zero both ways has cosine 1, and 0 if only one is.
    """
    check_images(images)
    points = images.detach().double()
    ones = torch.ones(len(points), dtype=torch.float64, device=points.device)
    _, gradient = score_gradient(score, points, ones, GradientCount())
    generator = np.random.Generator(np.random.Philox(_CHECK_SEED))
    exact, measured = [], []
    for _ in range(probes):
        probe = torch.from_numpy(generator.standard_normal(points.shape)).to(points)
        exact.append((gradient * probe).flatten(1).sum(1))
        ahead, behind = evaluate(score, points + step * probe), evaluate(score, points - step * probe)
        measured.append((ahead - behind) / (2 * step))
    a, b = torch.stack(exact), torch.stack(measured)
    norms = a.norm(dim=0) * b.norm(dim=0)
    both_zero = (a.norm(dim=0) == 0) & (b.norm(dim=0) == 0)
    cosine = torch.where(norms > 0, (a * b).sum(0) / norms.clamp_min(1e-300), both_zero.double())
    return cosine.cpu().numpy()


def check_gradient(
    score: ScoreFunction, images: Float[Tensor, "n c h w"], *, least: float = 0.9
) -> CheckOutcome:
    """Check autograd against float64 differences (`gradient_cosines`); value: the smallest cosine."""
    smallest = float(gradient_cosines(score, images).min())
    detail = "smallest cosine between autograd and float64 differences"
    return CheckOutcome("gradient", smallest > least, smallest, detail)


def check_noise_weaker(
    score: ScoreFunction,
    images: Float[Tensor, "n c h w"],
    result: AttackResult,
    *,
    draws: int = 50,
    batch_size: int = 64,
    tolerance: float = 1e-6,
) -> CheckOutcome:
    """Check that the best of many random points of the ball never beats the attack.

    Half of the points are uniform in the ball; the other half has signs of size eps (Linf) or lies on the
    sphere (L2), where a score is usually worst. value: the share of images for which noise does better.
    """
    threat = ThreatModel(result.norm, result.eps)
    sign, best = directions(result.labels), np.full(len(images), -np.inf)
    for draw in range(draws):
        points = threat.random_start(images, range(len(images)), seed=_CHECK_SEED, restart=draw + 1)
        if draw % 2:
            points = threat.project(images + threat.eps * threat.ascent(points - images), images)
        best = np.maximum(best, sign * score_batches(score, points, batch_size, images.device))
    share = float(np.mean(best > sign * result.scores + tolerance))
    return CheckOutcome(
        "noise_weaker", share == 0.0, share, f"share of images where the best of {draws} random points wins"
    )
