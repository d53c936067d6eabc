"""From a detector and a data set to attacked conditions; `diffad attack` is this with options and files around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from certify.types import FloatArray, ScoreBounds
from diffad.attacks import AttackResult, attack_curve, attack_smoothed, pgd
from diffad.attacks.result import keep_worse
from diffad.conditions import Condition, TestedImages, attack_condition, clean_condition
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.plan import Plan, smooth, subject_of


def attack_split(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    *,
    norm: str,
    radii: Sequence[float],
    steps: int,
    eot: int,
    restarts: int,
    seed: int,
    purifier: Any = None,
) -> list[Condition]:
    """Attack what the plan would certify: clean scores and the worst ones reached at each radius, ascending.

    `smoothing` "" attacks the plain score, `none` the same score with its exact value; the other ways attack
    the percentile under fresh noise, clean and attacked estimated with one evaluation key.
    """
    subject, tested = subject_of(detector, split, plan), TestedImages.of(split.test)
    images, labels = split.test.images, tested.labels
    noisy = plan.smoothing not in ("none", "")
    shared: dict[str, Any] = {"norm": norm, "steps": steps, "restarts": restarts, "seed": seed}
    attack: Callable[..., AttackResult]
    if noisy:
        smoothed = smooth(detector, plan, purifier)
        attack = partial(attack_smoothed, smoothed, images, labels, tested.index.tolist(), eot=eot, **shared)
    elif purifier is not None:
        raise InputError("--purifier: a score without noise is not denoised; use --smoothing denoise")
    else:
        attack = partial(pgd, detector.to(plan.device).score, images, labels, device=plan.device, **shared)
    found = attack_curve(attack, sorted({float(radius) for radius in radii if radius > 0}))
    exact = plan.smoothing == "none"
    scored = [_exact(detector, images, one, plan.device) if exact else _reached(one) for one in found]
    options: dict[str, Any] = {"n": plan.n if noisy else 0, "seed": plan.seed}
    return [
        clean_condition(subject, tested, scored[0][0], **options),
        *(
            attack_condition(subject, tested, bounds, norm=norm, eps=one.eps, **options)
            for one, (_, bounds) in zip(found, scored, strict=True)
        ),
    ]


def _reached(found: AttackResult) -> tuple[FloatArray, ScoreBounds]:
    return np.asarray(found.clean_scores), found.bounds()


def _exact(
    detector: Detector, images: Tensor, found: AttackResult, device: str | torch.device
) -> tuple[FloatArray, ScoreBounds]:
    """Rescore in float64: the certificate `none` is attained, so a float32 score could seem to leave it."""
    clean = np.mean(detector.score_interval(images.to(device)), axis=0)
    attacked = np.mean(detector.score_interval(found.images.to(device)), axis=0)
    _, worst = keep_worse(found.labels, (images, clean), (found.images, attacked))
    return clean, ScoreBounds(np.minimum(clean, worst), np.maximum(clean, worst))
