"""Transforms that degrade the whole image: Gaussian blur and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from certify.checks import check_positive
from diffad.data.transforms.base import Draw, Drawn, HardTransform, Rng, Shape, check_shares


@dataclass(frozen=True)
class Blur(HardTransform):
    """Gaussian blur (COBRA, App. D.1: kernel of at most 5 % of the width, sigma 2.5 pixels). Draws nothing.

    The kernel is the largest odd one within 5 % of the width, but at least 3 (5 % of 28 pixels would be no blur at
    all). The image is reflected at its border.
    """

    share: float = 0.05
    sigma: float = 2.5

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("blur: share", self.share)
        check_positive(self.sigma, "blur: sigma")

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Return the weights of the kernel, the same for every image."""
        size = max(int(self.share * shape[2]), 3)
        reach = (size - 1) // 2
        weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / self.sigma) ** 2)
        return {"weights": weights / weights.sum()}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Blur rows, then columns, as weighted sums of shifted images: the same to the bit in every batch."""
        weights = drawn["weights"]
        reach = weights.shape[1] // 2
        height, width = images.shape[2:]
        padded = F.pad(images, (reach, reach, reach, reach), mode="reflect")
        across = torch.zeros_like(padded[..., :width])
        for shift in range(2 * reach + 1):
            across += weights[:, shift, None, None, None] * padded[..., shift : shift + width]
        result = torch.zeros_like(images)
        for shift in range(2 * reach + 1):
            result += weights[:, shift, None, None, None] * across[..., shift : shift + height, :]
        return result


@dataclass(frozen=True)
class Noise(HardTransform):
    """Add Gaussian noise to every value (COBRA, App. D.1: N(0, 0.1)), then clip.

    The paper does not say whether 0.1 is the variance or the standard deviation. Here it is the standard deviation.
    """

    sigma: float = 0.1
    """In [0, 1] pixel units."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_positive(self.sigma, "noise: sigma")

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the noise."""
        return {"noise": self.sigma * rng.standard_normal(shape)}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Add it."""
        return images + drawn["noise"]
