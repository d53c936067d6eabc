"""Projected gradient ascent on an anomaly score (Madry et al., ICLR 2018), keeping the best point of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_choice, check_images
from certify.sampler import check_indices
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.objective import (
    GradientCount,
    check_attack_labels,
    check_eval_mode,
    directions,
    evaluate,
    score_gradient,
)
from diffad.attacks.result import AttackResult, keep_worse
from diffad.attacks.threat import Radius, ThreatModel

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


def pgd(
    score: ScoreFunction,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    *,
    norm: str,
    eps: Radius,
    steps: int = 50,
    restarts: int = 1,
    schedule: str = "cosine",
    seed: int = 0,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    indices: Sequence[int] | None = None,
    previous: AttackResult | None = None,
) -> AttackResult:
    """Raise the scores of normal images and lower those of anomalies within a ball, by their gradient.

    `score` maps images (b, c, h, w) in [0, 1] to scores (b,), higher = more anomalous, is differentiable and
    treats each image alone. `eps` is in [0, 1] pixel units, or text such as "8/255". The first restart begins
    at the clean image, or at the images of `previous` (a result at a smaller eps, whose points stay
    candidates); the others begin at random points keyed by (`seed`, index, restart). `indices` name the
    images (default 0, 1, ...). Every iterate of every restart is a candidate, and so is the clean image.
    The returned scores come from a fresh pass over the images in reverse order.

    Raises InputError for inputs out of range, a score without gradient, or one that is not finite.
    """
    threat = ThreatModel.parse(norm, eps)
    check_images(images)
    label_array = check_attack_labels(labels, len(images))
    names = check_indices(range(len(images)) if indices is None else indices, len(images))
    check_eval_mode(score)
    sizes = step_sizes(threat.eps, steps, schedule)
    if restarts < 1:
        raise InputError(f"restarts: got {restarts}, need at least 1")
    if previous is not None:
        previous.check_continues(threat, images, label_array)

    count, device = GradientCount(), device or images.device
    clean_scores = score_batches(score, images, batch_size, device)
    found, visited = [], []
    for rows in batches(len(images), batch_size):
        clean = images[rows].to(device)
        starts = [clean if previous is None else previous.images[rows].to(clean)]
        starts += [
            threat.random_start(clean, names[rows], seed=seed, restart=restart)
            for restart in range(1, restarts)
        ]
        direction = torch.from_numpy(directions(label_array[rows])).to(clean)
        points, values = _climb(score, clean, direction, threat, starts, sizes, count)
        found.append(points.cpu())
        visited.append(values.double().cpu().numpy())
    candidates = torch.cat(found)

    rescored = score_batches(score, candidates.flip(0), batch_size, device)[::-1]
    unmoved = (candidates == images.detach().cpu()).flatten(1).all(1).numpy()
    rescored = np.where(unmoved, clean_scores, rescored)  # the same image: no rounding of another batch
    best = keep_worse(label_array, (images.detach().cpu(), clean_scores), (candidates, rescored))
    if previous is not None:
        best = keep_worse(label_array, (previous.images, previous.scores), best)
    threat.check(best[0], images.detach().cpu())
    info = {
        "attack": "pgd",
        "steps": steps,
        "restarts": restarts,
        "schedule": schedule,
        "seed": seed,
        "gradient_evaluations": count.gradients,
        "zero_gradient_share": count.zero_share,
        # how far the scores seen on the way lie from those of the fresh pass: above rounding, the score
        # has hidden randomness or couples the images of a batch
        "recomputed_gap": float(np.abs(rescored - np.concatenate(visited)).max()),
    }
    return AttackResult(best[0], best[1], clean_scores, label_array, threat.norm, threat.eps, info)


def attack_curve(attack: Callable[..., AttackResult], radii: Sequence[Radius]) -> list[AttackResult]:
    """Attack at ascending radii, each from the points found at the one before.

    `attack` takes `eps` and `previous` by keyword: `partial(pgd, score, images, labels, norm="l2")`.
    A point found at a small radius is a candidate at every larger one, so no score improves with the radius.
    """
    results: list[AttackResult] = []
    for eps in radii:
        results.append(attack(eps=eps, previous=results[-1] if results else None))
    return results


def _climb(
    score: ScoreFunction,
    clean: Tensor,
    direction: Tensor,
    threat: ThreatModel,
    starts: Sequence[Tensor],
    sizes: Sequence[float],
    count: GradientCount,
) -> tuple[Tensor, Tensor]:
    """Return of all points visited the worst for each image, and its score."""
    best_points, best_scores = clean.clone(), evaluate(score, clean)

    def keep(points: Tensor, scores: Tensor) -> None:
        worse = direction * scores > direction * best_scores
        best_points[worse], best_scores[worse] = points[worse], scores[worse]

    for start in starts:
        points = start
        for size in sizes:
            scores, gradient = score_gradient(score, points, direction, count)
            keep(points, scores)
            points = threat.project(points + size * threat.ascent(gradient), clean)
        keep(points, evaluate(score, points))
    return best_points, best_scores


def score_batches(
    score: ScoreFunction, images: Tensor, batch_size: int, device: str | torch.device
) -> FloatArray:
    """Return the scores of all images as float64 (n,), in batches and without a graph."""
    parts = [evaluate(score, images[rows].to(device)) for rows in batches(len(images), batch_size)]
    return torch.cat(parts).double().cpu().numpy()


def batches(count: int, batch_size: int) -> Iterator[slice]:
    """Yield the slices of consecutive batches of at most `batch_size`."""
    if batch_size < 1:
        raise InputError(f"batch_size: got {batch_size}, need at least 1")
    for start in range(0, count, batch_size):
        yield slice(start, start + batch_size)
