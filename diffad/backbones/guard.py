"""One-step attacks to train on (FGSM-RS, Wong et al. 2020), and the guard against their catastrophic overfitting.

Trained against one step only, a network can learn to bend its gradient so that this step misses, and lose all its
robustness within a few hundred batches. The guard compares both attacks on a few images of every so many batches; when
PGD is far stronger, a stretch of batches is trained with PGD, which undoes the damage (Li et al. 2020, FastAdv+).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from certify.console import say
from diffad.backbones.classifier import Classifier
from diffad.backbones.config import BackboneConfig
from diffad.backbones.craft import ascend, ball_start, constant_steps, last


def fast_attack(
    classifier: Classifier, images: Tensor, labels: Tensor, config: BackboneConfig, generator: torch.Generator
) -> Tensor:
    """Return the attacked images of a batch: FGSM-RS, or PGD while an alarm lasts; `classifier.guard` keeps count."""
    guard, threat = classifier.guard, config.threat

    def attack(part: slice, sizes: list[float]) -> Tensor:
        chosen, target = images[part], labels[part]
        start = ball_start(chosen, threat, generator)
        losses = lambda x: F.cross_entropy(classifier(x), target, reduction="none")  # noqa: E731
        return last(ascend(losses, start, chosen, threat, sizes))

    strong = constant_steps(threat.eps, config.guard_steps)
    guard.batches += 1
    if int(guard.left) > 0:
        guard.left -= 1
        guard.strong += 1
        return attack(slice(None), strong)
    attacked = attack(slice(None), [config.fgsm_step * threat.eps])
    if int(guard.batches) % config.guard_every == 0:
        part = slice(0, config.guard_images)
        with torch.no_grad():
            fast = _accuracy(classifier, attacked[part], labels[part])
            slow = _accuracy(classifier, attack(part, strong), labels[part])
        if fast - slow > config.guard_gap:
            guard.left.fill_(config.guard_batches)
            guard.alarms += 1
            say(
                f"catastrophic overfitting at batch {int(guard.batches)}: accuracy {fast:.2f} under one step, "
                f"{slow:.2f} under {config.guard_steps}; the next {config.guard_batches} batches use PGD"
            )
    return attacked


def _accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    return float((classifier(images).argmax(1) == labels).float().mean())
