"""The network while it is trained: normalisation, network, and what the guard of fast training remembers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffad.backbones.network import Network


class Guard(nn.Module):
    """Memory of the guard against catastrophic overfitting; buffers, so that a checkpoint keeps it.

    Under several processes the first one's memory is handed to the others with the batch statistics.
    """

    batches: Tensor
    left: Tensor
    strong: Tensor
    alarms: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("batches", "left", "strong", "alarms"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))


class Classifier(nn.Module):
    """Images in [0, 1] to class scores."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.guard = Guard()
        self.register_buffer("mean", torch.tensor(tuple(mean))[:, None, None])
        self.register_buffer("std", torch.tensor(tuple(std))[:, None, None])

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return class scores."""
        scores: Tensor = self.network((images - self.mean) / self.std)
        return scores
