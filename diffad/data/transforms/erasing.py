"""Transforms that remove a part: random erasing, cutout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffad.data.transforms.base import (
    Draw,
    Drawn,
    HardTransform,
    Rng,
    Shape,
    check_shares,
    pixels,
    place,
    window,
)


@dataclass(frozen=True)
class RandomErasing(HardTransform):
    """Fill a rectangle with uniform noise (Zhong et al. 2020, variant RE-R).

    COBRA, App. D.1, says "aspect 10-50 %". Read here as: height and width are drawn apart, each from 10 to 50 % of its
    side. The fill is not given; noise in each pixel is the best of Zhong et al., and unlike `Cutout`.
    """

    low: float = 0.1
    high: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("erasing: low, high", self.low, self.high)

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the rectangle and the noise."""
        tall, wide = (pixels(rng.uniform(self.low, self.high), side) for side in shape[1:])
        top, left = place(rng, shape[1], tall), place(rng, shape[2], wide)
        return {"tall": tall, "wide": wide, "top": top, "left": left, "fill": rng.uniform(size=shape)}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Fill the rectangle."""
        area = window(images, drawn["top"], drawn["left"], drawn["tall"], drawn["wide"])
        return torch.where(area, drawn["fill"], images)


@dataclass(frozen=True)
class Cutout(HardTransform):
    """Fill a square with the mean of the image (DeVries and Taylor 2017; COBRA, App. D.1: side 25 %).

    The original fills with zero after normalisation, which is the mean colour. The square lies inside the image.
    """

    share: float = 0.25
    """Of each side."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("cutout: share", self.share)

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the place of the square."""
        tall, wide = (pixels(self.share, side) for side in shape[1:])
        return {
            "tall": tall,
            "wide": wide,
            "top": place(rng, shape[1], tall),
            "left": place(rng, shape[2], wide),
        }

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Fill the square."""
        area = window(images, drawn["top"], drawn["left"], drawn["tall"], drawn["wide"])
        # in float64: the order of a sum may depend on the batch, and must not show in the result
        mean = images.double().mean(dim=(2, 3), keepdim=True).to(images.dtype)
        return torch.where(area, mean, images)
