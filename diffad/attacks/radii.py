"""Attacks in which every image has a radius of its own, and all share the forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from certify.types import FloatArray
from diffad.attacks.methods import ATTACKS, Preset
from diffad.attacks.objective import GradientCount, IntArray, Rows, directions
from diffad.attacks.search import Search
from diffad.attacks.target import Target, batches
from diffad.attacks.threat import Norm, ThreatModel


@dataclass(frozen=True)
class Balls(ThreatModel):
    """Balls with a radius for each row (b, 1, 1, 1); `eps` is the largest.

    Attacks move by fractions of `eps`; `ascent` makes them the same fractions of each row's own radius.
    """

    radii: Tensor

    @classmethod
    def of(cls, norm: Norm, radii: FloatArray, like: Tensor) -> Balls:
        """Build the balls of radii (b,) around images `like` (b, c, h, w)."""
        return cls(norm, float(radii.max()), torch.from_numpy(radii).to(like).view(-1, 1, 1, 1))

    @property
    def radius(self) -> Tensor:
        """The radii (b, 1, 1, 1)."""
        return self.radii

    def ascent(self, gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the step of steepest ascent, as long as a row's radius is in units of the largest."""
        return super().ascent(gradient) * (self.radii / self.eps)


@dataclass
class Hunt:
    """Attacks by one method in many rounds, at a radius of its own for each image; images share batches.

    `names` are those of all images; `eot` and `seed` are as of `attack`; `count` is what was asked for so far.
    """

    target: Target
    preset: Preset
    norm: Norm
    names: list[int]
    seed: int
    eot: int
    batch_size: int
    count: GradientCount = field(default_factory=GradientCount)

    def attack(
        self,
        clean: Float[Tensor, "m c h w"],
        starts: Float[Tensor, "m c h w"],
        labels: IntArray,
        rows: IntArray,
        radii: FloatArray,
        turn: int,
    ) -> Float[Tensor, "m c h w"]:
        """Return on the CPU the worst points found within `radii` (m,) of the images numbered `rows`.

        An attack begins at `starts`, brought into its ball; from the second turn on at a random point where that is
        still the clean image (its gradient may vanish there). `turn` keys fresh noise and random points.
        """
        size, steps, found = self._rows_a_batch(), self.preset.steps, []
        objective = self.target.objective(eot=self.eot, seed=self.seed, first_chunk=turn * steps, steps=steps)
        for batch in batches(len(rows), size):
            here = clean[batch].to(self.target.device)
            threat = Balls.of(self.norm, radii[batch], here)
            names = tuple(self.names[row] for row in rows[batch])
            search = Search(
                self.target,
                objective,
                threat,
                here,
                self._start(threat, here, starts[batch].to(here), names, turn),
                torch.from_numpy(directions(labels[batch])).to(here),
                Rows(names, (0,) * len(names)),
                steps,
                self.seed + turn,  # other random points in every turn
                count=self.count,
            )
            ATTACKS[self.preset.method].run(search, steps)
            found.append(search.finish()[0])
        return torch.cat(found)

    def _rows_a_batch(self) -> int:
        return max(1, self.batch_size // self.eot) if self.target.noisy else self.batch_size

    def _start(self, threat: Balls, clean: Tensor, last: Tensor, names: Sequence[int], turn: int) -> Tensor:
        if turn:
            still = (last == clean).flatten(1).all(1).view(-1, 1, 1, 1)
            last = torch.where(still, threat.random_start(clean, names, seed=self.seed, restart=turn), last)
        return threat.project(last, clean)
