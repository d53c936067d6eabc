"""What every transform of a batch shares: parameters drawn for each image by its own seed, applied to all at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError, check_images

Rng: TypeAlias = np.random.Generator
Shape: TypeAlias = tuple[int, int, int]
Seeds: TypeAlias = Sequence[int] | Int[Tensor, " b"]
Draw: TypeAlias = dict[str, Any]
Drawn: TypeAlias = Mapping[str, Tensor]


class HardTransform(ABC):
    """A random change of an image that is meant to make it anomalous; a frozen dataclass of its parameters.

    What happens to an image depends on its own seed alone: not on the batch, its size, its order or the device (up to
    rounding on the latter). The result is clipped to [0, 1]. No global random state is touched. (torchvision's v2
    transforms draw once for a whole batch, from the global generator.)
    """

    takes_partner: ClassVar[bool] = False
    """Whether it mixes in another image."""

    @abstractmethod
    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the parameters of one image of this (channel, height, width)."""

    @abstractmethod
    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Return the changed images; `drawn` holds the parameters of all, with a first axis of b."""

    def __call__(
        self,
        images: Float[Tensor, "b c h w"],
        *,
        seeds: Seeds,
        partners: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return the images changed, each by the draw of its own seed, in their dtype and on their device.

        Args:
            images: in [0, 1].
            seeds: one whole number of at least 0 for each image.
            partners: other images in [0, 1], one for each, where `takes_partner`; ignored elsewhere.

        Raises:
            InputError: images, seeds or partners that cannot be used.
        """
        check_images(images)
        numbers = check_seeds(seeds, len(images))
        if self.takes_partner:
            partners = check_partners(partners, images, type(self).__name__)
        drawn = self.draw_all(numbers, images)
        with torch.no_grad():
            return self.change(images, drawn, images if partners is None else partners).clamp(0.0, 1.0)

    def draw_all(self, seeds: Sequence[int], images: Tensor) -> dict[str, Tensor]:
        """Return every parameter of all images as one tensor: floats in the dtype of `images`, the rest as int64."""
        shape = (images.shape[1], images.shape[2], images.shape[3])
        rows = [self.draw(generator(seed), shape) for seed in seeds]
        drawn = {}
        for name in rows[0]:
            values = torch.from_numpy(np.stack([np.asarray(row[name]) for row in rows]))
            kind = images.dtype if values.is_floating_point() else torch.int64
            drawn[name] = values.to(device=images.device, dtype=kind)
        return drawn


def generator(seed: int) -> Rng:
    """Return the generator of one image (numpy's Philox), a function of the seed alone."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))


def check_seeds(seeds: Seeds, count: int) -> list[int]:
    """Return one seed for each image as whole numbers of at least 0."""
    numbers = [int(seed) for seed in (seeds.tolist() if isinstance(seeds, Tensor) else seeds)]
    if len(numbers) != count or min(numbers) < 0:
        raise InputError(
            f"seeds: got {len(numbers)} for {count} images, least {min(numbers, default=None)}; need one whole "
            "number of at least 0 an image"
        )
    return numbers


def check_partners(partners: Tensor | None, images: Tensor, name: str) -> Tensor:
    """Return `partners` if they are images of the shape of `images`."""
    if partners is None or partners.shape != images.shape:
        shape = None if partners is None else tuple(partners.shape)
        raise InputError(
            f"partners: got {shape} for images {tuple(images.shape)}; {name} mixes each image with another of its shape"
        )
    return check_images(partners, name="partners").to(images)


def check_shares(name: str, *values: float) -> None:
    """Refuse shares, lowest first, that do not ascend within (0, 1]."""
    if not 0 < values[0] <= values[-1] <= 1:
        raise InputError(
            f"{name}: got {', '.join(map(str, values))}; need shares above 0 and up to 1, lowest first"
        )


def scalar(values: Tensor) -> Tensor:
    """Return one number for each image (b,) as (b, 1, 1, 1)."""
    return values[:, None, None, None]


def plane(values: Tensor) -> Tensor:
    """Return one number for each image (b,) as (b, 1, 1)."""
    return values[:, None, None]


def window(images: Tensor, top: Tensor, left: Tensor, tall: Tensor, wide: Tensor) -> Bool[Tensor, "b 1 h w"]:
    """Return where each image's rectangle lies; whole numbers of pixels (b,)."""
    rows = torch.arange(images.shape[2], device=images.device)[None, :, None]
    columns = torch.arange(images.shape[3], device=images.device)[None, None, :]
    down = (rows >= plane(top)) & (rows < plane(top + tall))
    across = (columns >= plane(left)) & (columns < plane(left + wide))
    return (down & across)[:, None]


def axes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return x (1, 1, w) and y (1, h, 1) of the pixel centres, in pixels from the middle of the image."""
    height, width = images.shape[2:]
    x = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2
    y = torch.arange(height, device=images.device, dtype=images.dtype) - (height - 1) / 2
    return x[None, None, :], y[None, :, None]


def read_at(images: Tensor, x: Tensor, y: Tensor, outside: str = "reflection") -> Float[Tensor, "b c h w"]:
    """Return the images read at places x, y (b, h, w), in pixels from the middle; bilinear.

    `outside` says what lies beyond the border: `reflection`, `border` (repeated) or `zeros`.
    """
    height, width = images.shape[2:]
    shape = (len(images), height, width)
    grid = torch.stack([(x * (2 / width)).expand(shape), (y * (2 / height)).expand(shape)], dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def place(rng: Rng, side: int, length: int) -> int:
    """Return where a stretch of `length` pixels begins in a side, each place equally likely."""
    return int(rng.integers(0, side - length + 1))


def pixels(share: float, side: int) -> int:
    """Return a share of a side in whole pixels, at least 1."""
    return min(max(round(share * side), 1), side)
