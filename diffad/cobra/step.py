"""One step of COBRA's training (the paper's Algorithm 1): two light views, an attacked third, one backward pass.

| 1 | b normal images, b pseudo-anomalies crafted from them; or the b images turned by 0, 90, 180 and 270 degrees |
| 2 | two light views of each, v1 and v2                                                                           |
| 3 | v_adv: v1, attacked to raise the contrastive and the classification loss of (v_adv, v2)                      |
| 4 | the losses of (v1, v2, v_adv): each view a positive of the others, classification on all                     |

All views go through the network as one batch, with joint batch statistics. Several processes are one batch to the
losses (`diffad.cobra.gather`), also while attacking; batch statistics are those of each process. Gradient accumulation
is not: negatives are those of one backward pass, so `gradient_accumulation_steps` averages the losses of smaller
batches and does not replace a larger `train_batch_size`.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffad.cobra.adversary import Adversary
from diffad.cobra.gather import gather_classes
from diffad.cobra.losses import LOSSES, PAIRED, LossOptions, pair_figures
from diffad.cobra.views import Views
from diffad.data.transforms import light_view

_SEEDS = 2**62


class CobraStep:
    """The loss of a batch, with what a log says of it since `figures` was last called.

    Args:
        network: the bare network, which is attacked in evaluation mode.
        weights: names of LOSSES and their weights.
        options: constants of the losses.
        adversary: makes the third view; None for two views, the clean-trained twin.
        rotations: the batch holds the images turned by quarters, in the place of pseudo-anomalies.
        flip: light views may mirror left to right.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: dict[str, float],
        options: LossOptions,
        *,
        adversary: Adversary | None,
        rotations: bool = False,
        flip: bool = False,
    ) -> None:
        self.network, self.weights, self.options = network, weights, options
        self.adversary, self.rotations, self.flip = adversary, rotations, flip
        self._seen: dict[str, list[Tensor]] = defaultdict(list)

    @property
    def classes(self) -> int:
        """Classes of a batch."""
        return 4 if self.rotations else 2

    def __call__(self, model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        """Return the loss of a batch: images (b, c, h, w); unless turned, pseudo-anomalies and how they were made.

        The latter are those of `diffad.cobra.ahead`: images, p-values, tries, accepted.
        """
        images = self._all_classes(batch)
        first, second = self._light(images, generator), self._light(images, generator)
        views = [first, second]
        if self.adversary is not None:
            attacked, gain = self.adversary.attack(self.network, first, second, self._inner, generator)
            views.append(attacked)
            self._seen["attack_gain"].append(gain)
        embeddings, scores = model(torch.cat(views))
        compared = self._compared(embeddings.view(len(views), len(images), -1), scores)
        return self._total(compared, record=True)

    def figures(self) -> dict[str, float]:
        """Return the means since the last call (the least of `least_numerator`), and forget."""
        found = {}
        for name, values in self._seen.items():
            together = torch.stack([value.double() for value in values])
            found[name] = float(together.min() if name == "least_numerator" else together.mean())
        if "tries" in found:
            found["acceptance"] = found["accepted"] / found["tries"]
        self._seen.clear()
        return found

    def _all_classes(self, batch: tuple[Tensor, ...]) -> Float[Tensor, "n c h w"]:
        """Return the images class by class, the normal ones first."""
        normal = batch[0]
        if self.rotations:
            return torch.cat([normal.rot90(turns, (2, 3)) for turns in range(self.classes)])
        pseudo, _, tries, accepted = batch[1:]
        self._seen["tries"].append(tries.double().mean())
        self._seen["accepted"].append(accepted.double().mean())
        self._seen["cap_hits"].append(1.0 - accepted.double().mean())
        return torch.cat([normal, pseudo])

    def _light(self, images: Tensor, generator: torch.Generator) -> Tensor:
        seeds = torch.randint(_SEEDS, (len(images),), generator=generator, device=images.device)
        return light_view(images, seeds=seeds, flip=self.flip)

    def _inner(self, embeddings: Tensor, scores: Tensor) -> Tensor:
        return self._total(self._compared(embeddings, scores), record=False)

    def _compared(self, embeddings: Float[Tensor, "views n d"], scores: Tensor) -> Views:
        """Return the views of the whole batch of all processes."""
        images = embeddings.shape[1]
        rows = gather_classes(embeddings, self.classes)
        logits = gather_classes(scores.view(-1, images, scores.shape[-1]), self.classes)
        each = rows.shape[1] // self.classes
        labels = torch.arange(self.classes, device=rows.device).repeat_interleave(each)
        return Views.of(rows, labels, logits.flatten(0, 1))

    def _total(self, views: Views, *, record: bool) -> Tensor:
        parts = {name: LOSSES[name](views, self.options) for name in self.weights}
        if record:
            for name, value in parts.items():
                self._seen[f"loss_{name}"].append(value.detach())
            if not self.rotations and PAIRED & set(self.weights):
                for name, value in pair_figures(views, self.options).items():
                    self._seen[name].append(value)
        return torch.stack([self.weights[name] * value for name, value in parts.items()]).sum()
