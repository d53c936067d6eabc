"""Generator and discriminator as one network, so that one forward pass and one optimiser step train both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from diffad.atd.feature_players import FeatureDiscriminator, FeatureGenerator
from diffad.atd.pixel_players import PixelDiscriminator, PixelGenerator

Generator: TypeAlias = FeatureGenerator | PixelGenerator
Discriminator: TypeAlias = FeatureDiscriminator | PixelDiscriminator
Statistics: TypeAlias = Literal["joint", "separate"]


@dataclass(frozen=True, eq=False)
class Judged:
    """Logits of a batch: what the discriminator learns from, and what the generator learns from.

    `generated` is None without a generator, `fooling` where the generator is not trained.
    """

    inside: Float[Tensor, " b"]
    outside: Float[Tensor, " m"]
    generated: Float[Tensor, " b"] | None
    fooling: Float[Tensor, " b"] | None


class Players(nn.Module):
    """What ATD trains: D, and G unless there is none.

    Args:
        discriminator: D, returns logits.
        generator: G; None for the ablation without one.
        train_generator: whether G learns; otherwise it stays as it was initialised, as in the published code, where a
            detached tensor keeps the gradient from it.
        statistics: `joint` batch norm of in-distribution, open and generated parts (as published), or `separate`
            passes.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        generator: Generator | None,
        *,
        train_generator: bool = True,
        statistics: Statistics = "joint",
    ) -> None:
        super().__init__()
        self.discriminator, self.generator = discriminator, generator
        self.train_generator, self.statistics = train_generator and generator is not None, statistics
        if generator is not None:
            generator.requires_grad_(train_generator)

    def forward(
        self, inside: Tensor, outside: Tensor, generated: Tensor | None, fresh: Tensor | None
    ) -> Judged:
        """Return the logits of one step of both players, at the weights before it.

        Args:
            inside: in-distribution features or images (b, ...).
            outside: open-set ones (m, ...), m may be 0.
            generated: what G made for D to learn from (b, ...), without gradient; None without a generator.
            fresh: other noise (b, z), for G to learn from; None where it does not. D is held fixed there: neither its
                weights nor its running statistics move, and G's images are normalised as D sees them in its own step.
        """
        parts = [inside, outside, *([] if generated is None else [generated])]
        judged = self._judge(self.discriminator, parts)
        fooling = None
        if fresh is not None and self.generator is not None:
            fixed = {name: tensor.detach() for name, tensor in self.discriminator.named_parameters()}
            fixed |= {name: tensor.clone() for name, tensor in self.discriminator.named_buffers()}
            made = self.generator(fresh)

            def discriminate(x: Tensor) -> Tensor:
                logits: Tensor = functional_call(self.discriminator, fixed, (x,))
                return logits

            alone = self.statistics == "separate"
            fooling = self._judge(discriminate, [made] if alone else [inside, outside, made])[-1]
        return Judged(judged[0], judged[1], judged[2] if len(judged) > 2 else None, fooling)

    def generate(self, z: Float[Tensor, "b z"]) -> Tensor:
        """Return what G makes of z, without gradient."""
        assert self.generator is not None
        with torch.no_grad():
            made: Tensor = self.generator(z)
        return made

    def _judge(self, discriminate: object, parts: list[Tensor]) -> list[Tensor]:
        """Return the logits of each part, from one pass or from one each."""
        assert callable(discriminate)
        if self.statistics == "joint":
            together: Tensor = discriminate(torch.cat(parts))
            return list(torch.split(together, [len(part) for part in parts]))
        return [discriminate(part) if len(part) else part.new_zeros(0) for part in parts]
