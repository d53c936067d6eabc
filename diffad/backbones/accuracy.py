"""Accuracy of a classifier, clean and under projected gradient ascent."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from diffad.attacks.threat import ThreatModel
from diffad.backbones.craft import ascend, ball_start, constant_steps, evaluating
from diffad.backbones.labelled import Labelled

BATCH = 256


def accuracy(
    network: nn.Module, part: Labelled, threat: ThreatModel, *, steps: int, seed: int = 0
) -> dict[str, float]:
    """Return the share of images classified right, `clean` and under `pgd` (by one restart, constant steps).

    An image counts as right under PGD if every point visited is, the clean one included: so `pgd` never exceeds
    `clean`. An upper bound of robust accuracy, as every attack gives.
    """
    device = next(network.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    clean, attacked = 0, 0
    with evaluating(network):
        for images, labels in zip(
            torch.split(part.images, BATCH), torch.split(part.labels, BATCH), strict=True
        ):
            right, withstood = survivors(
                network, images.to(device), labels.to(device), threat, steps, generator
            )
            clean += int(right.sum())
            attacked += int(withstood.sum())
    return {"clean": clean / len(part), "pgd": attacked / len(part)}


def survivors(
    network: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    threat: ThreatModel,
    steps: int,
    generator: torch.Generator,
) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
    """Return which images are classified right, and which stay so at every point of the ascent."""

    def losses(points: Tensor) -> Tensor:
        return F.cross_entropy(network(points), labels, reduction="none")

    def right(points: Tensor) -> Tensor:
        with torch.no_grad():
            correct: Tensor = network(points).argmax(1) == labels
            return correct

    clean = right(images)
    withstood = clean.clone()
    start = ball_start(images, threat, generator)
    for points in ascend(losses, start, images, threat, constant_steps(threat.eps, steps)):
        withstood &= right(points)
    return clean, withstood
