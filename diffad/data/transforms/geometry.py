"""Transforms that move pixels: jigsaw, rotation, crops, elastic deformation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError, check_positive
from diffad.data.transforms.base import (
    Draw,
    Drawn,
    HardTransform,
    Rng,
    Shape,
    axes,
    check_shares,
    plane,
    read_at,
    scalar,
)

_ORDERS = np.array(list(permutations(range(4))))[1:]  # the first one changes nothing


@dataclass(frozen=True)
class Jigsaw(HardTransform):
    """Permute the four quarters of an image (COBRA, App. D.1: 2 x 2).

    Each of the 23 orders other than the given one is equally likely. Where a side is odd its last row or column stays.
    """

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the order of the quarters."""
        if min(shape[1:]) < 2:
            raise InputError(f"jigsaw: got images {shape[1]} x {shape[2]}, need sides of at least 2")
        return {"order": _ORDERS[rng.integers(len(_ORDERS))]}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Move the quarters."""
        count, channels, height, width = images.shape
        h, w = height // 2, width // 2
        parts = images[:, :, : 2 * h, : 2 * w].reshape(count, channels, 2, h, 2, w)
        quarters = parts.permute(0, 2, 4, 1, 3, 5).reshape(count, 4, channels, h, w)
        moved = quarters[torch.arange(count, device=images.device)[:, None], drawn["order"]]
        result = images.clone()
        joined = moved.reshape(count, 2, 2, channels, h, w).permute(0, 3, 1, 4, 2, 5)
        result[:, :, : 2 * h, : 2 * w] = joined.reshape(count, channels, 2 * h, 2 * w)
        return result


@dataclass(frozen=True)
class Rotation(HardTransform):
    """Rotate about the middle, size kept (COBRA, App. D.1: U(-90, 90) degrees).

    The paper does not say what fills the corners. Here the image is reflected at its border: black corners would tell a
    rotation apart by themselves, on every surface that is not black.
    """

    degrees: float = 90.0
    """Angles are uniform from minus to plus this."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_positive(self.degrees, "rotation: degrees")

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the angle."""
        angle = np.deg2rad(rng.uniform(-self.degrees, self.degrees))
        return {"cos": np.cos(angle), "sin": np.sin(angle)}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Read each pixel where it was before the rotation."""
        x, y = axes(images)
        cos, sin = plane(drawn["cos"]), plane(drawn["sin"])
        return read_at(images, cos * x + sin * y, cos * y - sin * x)


@dataclass(frozen=True)
class QuarterTurns(HardTransform):
    """Rotate by 90, 180 or 270 degrees, exactly: the pseudo-anomalies of CSI (Tack et al. 2020). Square images only."""

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the number of quarter turns."""
        if shape[1] != shape[2]:
            raise InputError(f"quarter turns: got images {shape[1]} x {shape[2]}, need square ones")
        return {"turns": rng.integers(1, 4)}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Turn."""
        turns = scalar(drawn["turns"])
        result = images
        for count in (1, 2, 3):
            result = torch.where(turns == count, torch.rot90(images, count, (2, 3)), result)
        return result


@dataclass(frozen=True)
class Crop(HardTransform):
    """Cut out a part and enlarge it to the size of the image (COBRA, App. D.1: 50-80 %; at the centre 40-60 %).

    The paper leaves open whether the share is one of the side or of the area, and what becomes of the size. Here it is
    of the side, so that even the mildest crop (80 %) is harder than that of a positive view (80 % of the area, 89 % of
    the side), and the part is resized back, bilinear.
    """

    low: float
    high: float
    centre: bool = False
    """Cut from the middle instead of anywhere."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("crop: low, high", self.low, self.high)

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the share of the side and the place of the part."""
        share = rng.uniform(self.low, self.high)
        spare = 0.0 if self.centre else (1 - share) / 2
        x, y = rng.uniform(-spare, spare), rng.uniform(-spare, spare)
        return {"share": share, "x": x * shape[2], "y": y * shape[1]}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Enlarge the part."""
        return crop(images, drawn["share"], drawn["x"], drawn["y"])


def crop(images: Tensor, share: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the part of each image that is `share` of its sides and lies x, y pixels off its middle, enlarged."""
    across, down = axes(images)
    # within the image except for half a pixel of the enlarged border
    return read_at(images, plane(share) * across + plane(x), plane(share) * down + plane(y), "border")


@dataclass(frozen=True)
class Elastic(HardTransform):
    """Bend the image smoothly: a coarse grid of Gaussian displacements, interpolated bicubically.

    COBRA names an elastic transform (sec. 3.1) without parameters; these are our own.
    """

    points: int = 5
    """Control points a side, the border included."""
    strength: float = 0.06
    """Standard deviation of a displacement, as a share of the side."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_positive(self.strength, "elastic: strength")
        if self.points < 2:
            raise InputError(f"elastic: got points = {self.points}, need at least 2")

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the displacements of the control points in pixels."""
        sides = np.array([shape[2], shape[1]], dtype=np.float64)[:, None, None]
        return {"shift": self.strength * sides * rng.standard_normal((2, self.points, self.points))}

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Read each pixel from its displaced place."""
        x, y = axes(images)
        shift = F.interpolate(drawn["shift"], size=images.shape[2:], mode="bicubic", align_corners=True)
        return read_at(images, x + shift[:, 0], y + shift[:, 1])
