"""The network of COBRA: an encoder F, a projection G for the contrastive losses, and a linear classifier H on F."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError
from diffad.backbones.network import Network


class Heads(nn.Module):
    """What reads the features of the encoder: G, a linear layer, ReLU and a linear layer, and H, a linear layer.

    Args:
        features: length of the encoder's feature.
        embedding: length of G's output; 128 in the paper.
        classes: outputs of H: 2 (normal, pseudo-anomaly), or 4 (turned by 0, 90, 180, 270 degrees).
    """

    def __init__(self, features: int, embedding: int = 128, classes: int = 2) -> None:
        super().__init__()
        if min(features, embedding) < 1 or classes < 2:
            raise InputError(
                f"heads: got features {features}, embedding {embedding}, classes {classes}; need at least 1, 1, 2"
            )
        self.projection = nn.Sequential(
            nn.Linear(features, features), nn.ReLU(), nn.Linear(features, embedding)
        )
        self.classifier = nn.Linear(features, classes)

    @property
    def classes(self) -> int:
        """Outputs of H."""
        return self.classifier.out_features

    def forward(self, features: Float[Tensor, "b f"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        """Return embeddings G(F) and class scores H(F)."""
        return self.projection(features), self.classifier(features)


class CobraNetwork(nn.Module):
    """Images in [0, 1] to embeddings and class scores; normalisation is inside, and nothing is clipped.

    Args:
        encoder: F, a network without a head of its own.
        heads: G and H on its features.
        mean: subtracted from each channel; the released code has 0.5.
        std: divides each channel after that; the released code has 0.5.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: Network, heads: Heads, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.5,)
    ) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, heads
        self.register_buffer("mean", torch.tensor(tuple(mean))[:, None, None])
        self.register_buffer("std", torch.tensor(tuple(std))[:, None, None])

    def forward(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b k"]]:
        """Return embeddings (b, d) and class scores (b, classes)."""
        features, _ = self.encoder.encode((images - self.mean) / self.std)
        embeddings, scores = self.heads(features)
        return embeddings, scores
