"""What every network of a backbone gives: a feature, the maps it was made from, and class scores."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError


class Network(nn.Module, ABC):
    """A network on normalised images (batch, channel, height, width).

    Attributes:
        dim: length of the feature.
        channels: channels of the images.
        classes: outputs of the classification head; 0 where there is none.
    """

    dim: int
    channels: int
    classes: int

    @abstractmethod
    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the feature (b, dim) in front of the head, and the maps (b, c', h', w') by name, in order."""

    @abstractmethod
    def head(self, feature: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """Return class scores of a feature; `InputError` where there is no head."""

    def lipschitz(self) -> float | None:
        """Return a proven L2 Lipschitz constant of the feature in the normalised image; None without a proof."""
        return None

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the class scores of images."""
        return self.head(self.encode(images)[0])


def apply_head(head: nn.Module | None, feature: Tensor) -> Tensor:
    """Return `head(feature)`, or refuse a network without a head."""
    if head is None:
        raise InputError("backbone: has no classification head; use features")
    scores: Tensor = head(feature)
    return scores
