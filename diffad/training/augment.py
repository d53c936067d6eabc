"""Augmentation of a whole batch at once, drawn from a generator."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


@runtime_checkable
class Augmentation(Protocol):
    """The options that say how images are varied; configurations of trainings have them."""

    @property
    def random_flip(self) -> bool:
        """Mirror half of the images left to right."""

    @property
    def random_vertical_flip(self) -> bool:
        """Mirror half of the images top to bottom."""

    @property
    def random_shift(self) -> int:
        """Shift each image by up to so many pixels along each axis; the border is repeated."""


def augment(
    images: Float[Tensor, "b c h w"], config: Augmentation, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Return the images flipped and shifted as `config` says, each by its own draw."""
    if config.random_flip:
        images = torch.where(_coins(images, generator), images.flip(-1), images)
    if config.random_vertical_flip:
        images = torch.where(_coins(images, generator), images.flip(-2), images)
    if config.random_shift:
        images = _shift(images, config.random_shift, generator)
    return images


def _coins(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5


def _shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `most` pixels along each axis, repeating its border."""
    count, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (most, most, most, most), mode="replicate")
    starts = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator, device=device)
    rows = starts[0] + torch.arange(height, device=device)
    columns = starts[1] + torch.arange(width, device=device)
    which = torch.arange(count, device=device)[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
