"""The inner problems of ATD's training: each real image made to look worst to the discriminator."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffad.attacks.threat import ThreatModel
from diffad.backbones import Backbone
from diffad.backbones.craft import ascend, ball_start, constant_steps, frozen, last


@dataclass
class GradientCount:
    """How many gradients of an image were exactly zero, which a saturated discriminator shows by."""

    zero: list[Tensor] = field(default_factory=list)
    seen: int = 0

    def watch(self, gradient: Tensor) -> None:
        """Count the images of one step."""
        self.zero.append((gradient.flatten(1) == 0).all(1).sum())
        self.seen += len(gradient)

    def share(self) -> float:
        """Return the share since the last call, and forget."""
        found = float(torch.stack(self.zero).sum()) / self.seen if self.seen else 0.0
        self.zero.clear()
        self.seen = 0
        return found


@dataclass(frozen=True)
class Adversary:
    """Projected gradient steps on the logit of the discriminator, from a uniform start in the ball.

    The paper maximises -log D for in-distribution images and -log(1 - D) for open ones. Both rise and fall with the
    logit, image by image, so the steps follow the logit itself: it has the same worst image and does not saturate.

    Attributes:
        threat: what the attacker may do to an image, [0, 1] pixel units.
        steps: gradient steps of 2.5 eps / steps; the last point is kept, as published.
    """

    threat: ThreatModel
    steps: int = 10

    def attack(
        self,
        discriminator: nn.Module,
        extractor: Backbone | None,
        images: Float[Tensor, "b c h w"],
        upwards: Float[Tensor, " b"],
        generator: torch.Generator,
        count: GradientCount | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return attacked images.

        Args:
            discriminator: returns logits; evaluated with its running statistics and as it is now, put back after.
            extractor: the frozen network in front of it, whose features it judges; None where it judges pixels.
            images: in [0, 1].
            upwards: 1 for an image whose logit is raised (out of the distribution), -1 for one whose logit is lowered.
            generator: draws the start.
            count: counts gradients that are zero.
        """

        def losses(points: Tensor) -> Tensor:
            judged: Tensor = discriminator(points if extractor is None else extractor.features(points))
            return upwards * judged

        with frozen(discriminator):
            start = ball_start(images, self.threat, generator)
            sizes = constant_steps(self.threat.eps, self.steps)
            watch = None if count is None else count.watch
            return last(ascend(losses, start, images, self.threat, sizes, watch))
