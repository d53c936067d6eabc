"""Linear features: the projection of an image on a few directions, whose Lipschitz constant is known."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError
from diffad.backbones.network import Network, apply_head
from diffad.rounding import spectral_bound


class LinearProjection(Network):
    """f(x) = W x, in float64, of images of one size; W is zero until it is loaded or set.

    Args:
        dim: rows of W, the length of the feature.
        side: height and width of the images.
        in_channels: 3, or 1 for grey images.
    """

    weight: nn.Parameter

    def __init__(self, dim: int, side: int, in_channels: int = 3) -> None:
        super().__init__()
        pixels = in_channels * side * side
        if in_channels not in (1, 3) or side < 1 or not 1 <= dim <= pixels:
            raise InputError(
                f"linear: got dim {dim}, side {side}, in_channels {in_channels}; need 1 <= dim <= pixels times "
                "channels, side at least 1, in_channels 1 or 3"
            )
        self.dim, self.channels, self.classes, self.side = dim, in_channels, 0, side
        self.weight = nn.Parameter(torch.zeros(dim, pixels, dtype=torch.float64))

    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return W x, and no maps."""
        if tuple(images.shape[1:]) != (self.channels, self.side, self.side):
            raise InputError(
                f"linear: got images {tuple(images.shape[1:])}, need {(self.channels, self.side, self.side)}; give the "
                f"backbone resolution {self.side}"
            )
        return images.flatten(1) @ self.weight.T, {}

    def head(self, feature: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """Refuse: there is no head."""
        return apply_head(None, feature)

    def lipschitz(self) -> float | None:
        """Return an upper bound of the spectral norm of W: |W x - W y| <= ||W|| |x - y|."""
        return spectral_bound(self.weight.detach())
