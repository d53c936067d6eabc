"""Transforms that mix in another image: mixup, cutmix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from certify.checks import check_positive
from diffad.data.transforms.base import (
    Draw,
    Drawn,
    HardTransform,
    Rng,
    Shape,
    check_shares,
    pixels,
    place,
    scalar,
    window,
)


@dataclass(frozen=True)
class Mixup(HardTransform):
    """Blend with another image, share * image + (1 - share) * other (Zhang et al. 2018).

    The share has the law Beta(0.1, 0.1) (COBRA, App. D.1). The paper takes that for a strong blend; it is the reverse:
    the law piles up at 0 and 1, and four draws of five are more than nine tenths of one image. Those look normal, and
    it is the filter that refuses them.
    """

    takes_partner: ClassVar[bool] = True
    concentration: float = 0.1
    """Both parameters of the Beta law; 1 is uniform, larger blends more."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_positive(self.concentration, "mixup: concentration")

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the share of the image itself."""
        return {"share": rng.beta(self.concentration, self.concentration)}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Blend."""
        share = scalar(drawn["share"])
        return share * images + (1 - share) * partners


@dataclass(frozen=True)
class CutMix(HardTransform):
    """Replace a rectangle by the same part of another image (Yun et al. 2019; COBRA, App. D.1: about 20 % of the area).

    The rectangle has the proportions of the image and lies inside it.
    """

    takes_partner: ClassVar[bool] = True
    area: float = 0.2

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("cutmix: area", self.area)

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the place of the rectangle."""
        tall, wide = (pixels(float(np.sqrt(self.area)), side) for side in shape[1:])
        return {
            "tall": tall,
            "wide": wide,
            "top": place(rng, shape[1], tall),
            "left": place(rng, shape[2], wide),
        }

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Copy the rectangle from the other image."""
        area = window(images, drawn["top"], drawn["left"], drawn["tall"], drawn["wide"])
        return torch.where(area, partners, images)
