"""Transforms that copy a part of an image to another place in it: cut-paste, square and scar (Li et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.data.transforms.base import (
    Draw,
    Drawn,
    HardTransform,
    Rng,
    Shape,
    axes,
    check_shares,
    pixels,
    plane,
    read_at,
    window,
)
from diffad.data.transforms.colour import draw_jitter, jitter


@dataclass(frozen=True)
class CutPaste(HardTransform):
    """Copy a square of the image to another place in it (COBRA, App. D.1: side 10-50 % of the width).

    From and to are drawn evenly among the places where the square fits, never the same. The patch is not altered.
    """

    low: float = 0.1
    high: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("cutpaste: low, high", self.low, self.high)

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw the side of the square, where it is cut and where it goes."""
        _, height, width = shape
        side = min(pixels(rng.uniform(self.low, self.high), width), height)
        across = width - side + 1
        places = across * (height - side + 1)
        if places < 2:
            raise InputError(f"cutpaste: a square of {side} pixels has one place in {height} x {width}")
        source, target = int(rng.integers(places)), int(rng.integers(places - 1))
        target += target >= source
        top, left = divmod(target, across)
        return {
            "side": side,
            "top": top,
            "left": left,
            "down": source // across - top,
            "right": source % across - left,
        }

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Copy the square."""
        height, width = images.shape[2:]
        area = window(images, drawn["top"], drawn["left"], drawn["side"], drawn["side"])[:, 0].long()
        rows = torch.arange(height, device=images.device)[None, :, None] + area * plane(drawn["down"])
        columns = torch.arange(width, device=images.device)[None, None, :] + area * plane(drawn["right"])
        places = (rows * width + columns).flatten(1)[:, None].expand(-1, images.shape[1], -1)
        return images.flatten(2).gather(2, places).reshape(images.shape)


@dataclass(frozen=True)
class CutPasteScar(HardTransform):
    """Copy a thin rectangle of the image, rotated and with its colours jittered, to another place in it.

    Li et al. give widths of 2-16 and lengths of 10-25 pixels at 256, COBRA's released code 7-40 and 10-40 at any size,
    angles of a full turn and a jitter of 0.8 / 0.8 / 0.8 / 0.2. Sizes here are shares of the side, so that a scar is
    one at 28 pixels too; angle and jitter are those of the released code.
    """

    thickness: tuple[float, float] = (0.05, 0.12)
    """As a share of the shorter side, at least 1.5 pixels."""
    length: tuple[float, float] = (0.2, 0.5)
    """As a share of the shorter side."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        check_shares("scar: thickness", *self.thickness)
        check_shares("scar: length", *self.length)

    def draw(self, rng: Rng, shape: Shape) -> Draw:
        """Draw size, angle, both places and the jitter."""
        _, height, width = shape
        short = min(height, width)
        angle = rng.uniform(0, 2 * np.pi)
        places = rng.uniform(-0.35, 0.35, (2, 2)) * (width, height)
        return {
            "half_length": rng.uniform(*self.length) * short / 2,
            "half_thickness": max(rng.uniform(*self.thickness) * short, 1.5) / 2,
            "cos": np.cos(angle),
            "sin": np.sin(angle),
            "source": places[0],
            "target": places[1],
            **draw_jitter(rng, 0.8, 0.8, 0.8, 0.2),
        }

    def change(self, images: Tensor, drawn: Drawn, partners: Tensor) -> Tensor:
        """Copy the scar."""
        x, y = axes(images)
        dx, dy = x - plane(drawn["target"][:, 0]), y - plane(drawn["target"][:, 1])
        cos, sin = plane(drawn["cos"]), plane(drawn["sin"])
        along, aside = cos * dx + sin * dy, cos * dy - sin * dx
        area = (along.abs() <= plane(drawn["half_length"])) & (aside.abs() <= plane(drawn["half_thickness"]))
        source = (plane(drawn["source"][:, 0]) + along, plane(drawn["source"][:, 1]) + aside)
        return torch.where(area[:, None], jitter(read_at(images, *source), drawn), images)
