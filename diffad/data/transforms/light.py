"""Light augmentation: the positive views of contrastive training (COBRA, App. D.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.data.transforms.base import Draw, Drawn, HardTransform, Rng, Shape, check_shares, scalar
from diffad.data.transforms.colour import draw_jitter, grey, jitter
from diffad.data.transforms.geometry import crop


@dataclass(frozen=True)
class LightView(HardTransform):
    """Crop, colour jitter, random greyscale, optional flip: changes that leave a normal image normal.

    COBRA gives the crop (80-100 %) and names the rest; strengths and probabilities are those of its released code,
    which are SimCLR's for small images. Greyscale, saturation and hue do nothing to images of one channel.
    """

    area: tuple[float, float] = (0.8, 1.0)
    """Share of the area that a crop keeps, proportions kept, resized back."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Strength of brightness, contrast, saturation and hue."""
    jitter_probability: float = 0.8
    grey_probability: float = 0.2
    flip: bool = False
    """Mirror half of the images left to right; Algorithm 1 lists it, but letters and digits do not bear it."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("light view: area", *self.area)
        if not (0 <= self.jitter_probability <= 1 and 0 <= self.grey_probability <= 1):
            given = f"{self.jitter_probability}, {self.grey_probability}"
            raise InputError(f"light view: got probabilities {given}; need values in [0, 1]")
        if min(self.jitter) < 0 or self.jitter[3] > 0.5:
            raise InputError(f"light view: got jitter {self.jitter}; need at least 0, hue up to 0.5")

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw crop, jitter and the three coins."""
        share = np.sqrt(rng.uniform(*self.area))
        x, y = rng.uniform(-0.5, 0.5, 2) * (1 - share) * (shape[2], shape[1])
        return {
            "share": share,
            "x": x,
            "y": y,
            "jittered": rng.uniform() < self.jitter_probability,
            "greyed": rng.uniform() < self.grey_probability,
            "flipped": rng.uniform() < (0.5 if self.flip else 0.0),
            **draw_jitter(rng, *self.jitter),
        }

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Crop, flip, jitter, take the colour away."""
        result = crop(images, drawn["share"], drawn["x"], drawn["y"])
        result = torch.where(scalar(drawn["flipped"]).bool(), result.flip(-1), result)
        result = torch.where(scalar(drawn["jittered"]).bool(), jitter(result, drawn), result)
        return torch.where(scalar(drawn["greyed"]).bool(), grey(result).expand_as(result), result)
