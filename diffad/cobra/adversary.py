"""The inner maximisation of COBRA's training: the view within the threat that its losses like least (Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffad.attacks.threat import ThreatModel
from diffad.backbones.craft import ascend, ball_start, constant_steps, frozen, last

Start: TypeAlias = Literal["random", "clean"]
# embeddings (2, n, d) of the attacked and of the other view, class scores (n, classes) of the attacked one -> loss ()
InnerLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Adversary:
    """Projected gradient ascent on the sum of the contrastive and the classification loss.

    Attributes:
        threat: what the attacker may do to a view, [0, 1] pixel units.
        steps: gradient steps of 2.5 eps / steps.
        start: `random` draws it uniformly from the ball (the released code); `clean` is the view itself (Algorithm 1).
    """

    threat: ThreatModel
    steps: int = 10
    start: Start = "random"

    def attack(
        self,
        network: nn.Module,
        view: Float[Tensor, "n c h w"],
        other: Float[Tensor, "n c h w"],
        loss: InnerLoss,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, ""]]:
        """Return the attacked `view`, and what the loss rose by up to the point before the last step.

        `other`, the second view of the same images, is held fixed. All images of a batch are attacked together: the
        loss of one depends on the others, its negatives.
        """
        values: list[Tensor] = []
        with frozen(network):
            with torch.no_grad():
                fixed, _ = network(other)

            def losses(points: Tensor) -> Tensor:
                embeddings, scores = network(points)
                value = loss(torch.stack([embeddings, fixed]), scores)
                values.append(value.detach())
                return len(points) * value  # the mean over images has gradients too small for half precision

            clean = self.start == "clean"
            start = view if clean else ball_start(view, self.threat, generator)
            sizes = constant_steps(self.threat.eps, self.steps)
            attacked = last(ascend(losses, start, view, self.threat, sizes))
        return attacked, values[-1] - values[0]
