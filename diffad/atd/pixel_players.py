"""The players in pixel space, the paper's ablation without a feature extractor: small DCGANs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError
from diffad.atd.feature_players import LATENT, SLOPE, check_sizes, initialise


class PixelGenerator(nn.Module):
    """z ~ N(0, I) to an image in [0, 1]: transposed convolutions, each doubling the side, a sigmoid at the end.

    The published one ends in tanh, whose range [-1, 1] no image has.

    Args:
        channels: of the image.
        side: height and width of the image.
        hidden: channels of the discriminator's stages, used here from the last to the first.
        latent: length of z.
    """

    def __init__(self, channels: int, side: int, hidden: Sequence[int], latent: int = LATENT) -> None:
        super().__init__()
        check_sizes("generator", (channels, latent), hidden)
        first = _smallest(side, hidden)
        if first * 2 ** len(hidden) != side:
            raise InputError(
                f"generator: {len(hidden)} stages double a side, which never ends at {side}; need a resolution that "
                f"{2 ** len(hidden)} divides, or fewer stages"
            )
        self.latent = latent
        sizes = tuple(reversed(hidden))
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, sizes[0], first, bias=False)]
        for before, after in pairwise(sizes):
            layers += [nn.BatchNorm2d(before), nn.ReLU()]
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(sizes[-1]), nn.ReLU()]
        layers += [nn.ConvTranspose2d(sizes[-1], channels, 4, 2, 1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)
        self.apply(initialise)

    def forward(self, z: Float[Tensor, "b z"]) -> Float[Tensor, "b c h w"]:
        """Return generated images."""
        images: Tensor = self.layers(z[:, :, None, None])
        return images


class PixelDiscriminator(nn.Module):
    """An image in [0, 1] to the logit of lying in the distribution: convolutions, each halving the side.

    LeakyReLU behind all but the last, batch norm before it in all stages but the first, no biases.

    Args:
        channels: of the image.
        side: height and width of the image.
        hidden: channels of the stages.
    """

    def __init__(self, channels: int, side: int, hidden: Sequence[int]) -> None:
        super().__init__()
        check_sizes("discriminator", (channels,), hidden)
        self.hidden = tuple(hidden)
        layers: list[nn.Module] = [nn.Conv2d(channels, hidden[0], 4, 2, 1, bias=False), nn.LeakyReLU(SLOPE)]
        for before, after in pairwise(hidden):
            layers += [
                nn.Conv2d(before, after, 4, 2, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(SLOPE),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden[-1], 1, _smallest(side, hidden), bias=False))
        self.apply(initialise)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
        """Return logits (b,), higher = more like the in-distribution."""
        logits: Tensor = self.layers(2.0 * images - 1.0)[:, 0, 0, 0]
        return logits


def _smallest(side: int, hidden: Sequence[int]) -> int:
    """Return the side behind all stages."""
    smallest: int = side // 2 ** len(hidden)
    if smallest < 1:
        raise InputError(
            f"pixel space: {len(hidden)} stages leave nothing of {side} x {side} images; give fewer in hidden"
        )
    return smallest
