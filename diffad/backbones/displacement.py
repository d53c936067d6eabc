"""Measured robustness of a backbone: how far an attacker moves its features.

A claim that weights are robust is worth nothing until it is measured: a wrong prefix loads nothing, a default file is
the standard one, and either still scores. The measure needs no labels: PGD on the distance between the features of an
image and of its neighbour, in units of the distance between the features of different images, compared with a
standard twin. Robust weights move several times less.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_images
from diffad.attacks.threat import Radius, ThreatModel
from diffad.backbones.backbone import Backbone
from diffad.backbones.craft import ascend, ball_start, constant_steps

ROBUST_RATIO = (
    3.0  # a backbone counts as robust when its standard twin moves more than this many times as far
)


@dataclass(frozen=True)
class Displacement:
    """How far features moved under attack.

    Attributes:
        distances: largest L2 distance found from the clean feature, one an image; a lower bound of what is possible.
        spread: mean L2 distance between the clean features of different images.
    """

    distances: Float[Tensor, " b"]
    spread: float

    @property
    def relative(self) -> float:
        """Mean distance over spread: 1 means that an attack moves an image as far as another image is away."""
        return float(self.distances.mean()) / self.spread


def feature_displacement(
    backbone: Backbone,
    images: Float[Tensor, "b c h w"],
    norm: str,
    eps: Radius,
    steps: int,
    *,
    seed: int = 0,
) -> Displacement:
    """Ascend on the distance of features from clean ones, from a random start, and keep the farthest point visited.

    Args:
        backbone: what is measured.
        images: at least two different images in [0, 1]; the attack is at their size.
        norm: "linf" or "l2".
        eps: size of the attack, [0, 1] pixel units, or a fraction such as "4/255".
        steps: gradient steps, of 2.5 eps / steps each.
        seed: of the start (at the clean image itself the distance has no gradient).
    """
    check_images(images)
    threat = ThreatModel.parse(norm, eps)
    if steps < 1 or len(images) < 2:
        raise InputError(f"steps, images: got {steps}, {len(images)}; need at least 1 and 2")
    with torch.no_grad():
        clean = backbone.features(images)
    spread = float(torch.pdist(clean.double()).mean())
    if spread == 0:
        raise InputError("backbone: gives all images the same feature; were its weights loaded?")

    def distances(points: Tensor) -> Tensor:
        return (backbone.features(points) - clean).square().sum(1)

    generator = torch.Generator(images.device).manual_seed(seed)
    start = ball_start(images, threat, generator)
    with torch.no_grad():
        largest = distances(start)
        for points in ascend(distances, start, images, threat, constant_steps(threat.eps, steps)):
            largest = torch.maximum(largest, distances(points))
    return Displacement(largest.sqrt(), spread)


def displacement_ratio(
    robust: Backbone,
    standard: Backbone,
    images: Float[Tensor, "b c h w"],
    norm: str,
    eps: Radius,
    steps: int,
    *,
    seed: int = 0,
) -> float:
    """Return how many times as far, relative to their spread, the features of the standard twin move.

    Above `ROBUST_RATIO` the first backbone counts as robust.
    """
    measured = [
        feature_displacement(backbone, images, norm, eps, steps, seed=seed).relative
        for backbone in (standard, robust)
    ]
    if measured[1] == 0:
        raise InputError("displacement: the attack moved no feature; give an eps above 0")
    return measured[0] / measured[1]
