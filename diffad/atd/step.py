"""One step of ATD's training: attack both real parts, then move discriminator and generator together.

| 1 | b in-distribution images, m of the open set; each attacked through the frozen extractor, D in evaluation mode |
| 2 | their features, without gradient to the extractor, and b generated ones, which are not attacked               |
| 3 | D: eq. (9) on the three parts; batch norm over all of them, or over each                                      |
| 4 | G: the logits of b fresh generated features, with D fixed                                                     |

Both gradients are taken at the weights before the step; the published code moves D first, then G, which gets no
gradient there. Several processes each attack and judge their own images, with their own batch statistics.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from diffad.atd.adversary import Adversary, GradientCount
from diffad.atd.network import Players
from diffad.atd.objective import discriminator_loss, generator_loss
from diffad.backbones import Backbone


class AtdStep:
    """The loss of a batch, with what a log says of it since `figures` was last called.

    Args:
        players: the bare network.
        extractor: the frozen network in front of the players; None in pixel space, and where batches hold features.
        alpha: weight of the open set in the discriminator's loss; the generated part has 1 - alpha.
        adversary: attacks the real images; None trains on them as they are.
        attack_generated: attack generated images too, in pixel space.
    """

    def __init__(
        self,
        players: Players,
        extractor: Backbone | None,
        *,
        alpha: float,
        adversary: Adversary | None,
        attack_generated: bool = False,
    ) -> None:
        self.players, self.extractor, self.alpha = players, extractor, alpha
        self.adversary, self.attack_generated = adversary, attack_generated
        self._gradients = GradientCount()
        self._seen: dict[str, list[Tensor]] = defaultdict(list)

    def __call__(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Return the loss of a batch of in-distribution images (b, ...) and open-set ones (m, ...).

        Where the extractor is None the batch may hold features, computed before.
        """
        inside, outside = batch
        made = self._generated(len(inside), inside.device, generator)
        if self.adversary is not None:
            inside, outside, made = self._attacked(inside, outside, made, generator)
        if self.extractor is not None:
            with torch.no_grad():
                count = len(inside)
                seen = self.extractor.features(torch.cat([inside, outside]))
                inside, outside = seen[:count], seen[count:]
        fresh = self._noise(len(inside), inside.device, generator) if self.players.train_generator else None
        judged = model(inside, outside, made, fresh)
        loss = discriminator_loss(judged, self.alpha)
        self._seen["loss_discriminator"].append(loss.detach())
        for name in ("inside", "outside", "generated"):
            logits = getattr(judged, name)
            if logits is not None and len(logits):
                self._seen[f"logit_{name}"].append(logits.detach().float().mean())
        if judged.fooling is None:
            return loss
        fooled = generator_loss(judged)
        self._seen["loss_generator"].append(fooled.detach())
        return loss + fooled

    def saw(self, name: str, value: Tensor) -> None:
        """Note a number for the log."""
        self._seen[name].append(value)

    def figures(self) -> dict[str, float]:
        """Return the means since the last call, and forget; with an adversary the share of gradients that were 0."""
        found = {name: float(torch.stack(values).mean()) for name, values in self._seen.items()}
        self._seen.clear()
        if self.adversary is not None:
            found["zero_gradient_share"] = self._gradients.share()
        return found

    def _attacked(
        self, inside: Tensor, outside: Tensor, made: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        assert self.adversary is not None
        parts = [inside, outside, *([made] if self.attack_generated and made is not None else [])]
        sizes = [len(part) for part in parts]
        upwards = inside.new_ones(sum(sizes))
        upwards[: len(inside)] = -1.0
        attacked = self.adversary.attack(
            self.players.discriminator, self.extractor, torch.cat(parts), upwards, generator, self._gradients
        )
        first, second, *third = torch.split(attacked, sizes)
        return first, second, third[0] if third else made

    def _generated(self, count: int, device: torch.device, generator: torch.Generator) -> Tensor | None:
        if self.players.generator is None or self.alpha == 1.0:
            return None
        return self.players.generate(self._noise(count, device, generator))

    def _noise(self, count: int, device: torch.device, generator: torch.Generator) -> Tensor:
        assert self.players.generator is not None
        return torch.randn(count, self.players.generator.latent, generator=generator, device=device)
