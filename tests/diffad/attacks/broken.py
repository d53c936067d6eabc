"""A sound detector, and twins of it that are broken on purpose: each check fires on one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHAPE = (1, 4, 4)
COUNT = 12  # images, half of them anomalous


def labels() -> Tensor:
    return torch.arange(COUNT) // (COUNT // 2)


def images() -> Tensor:
    """Normals near the prototype of `Sound`, anomalies farther off; (12, 1, 4, 4)."""
    generator = torch.Generator().manual_seed(1)
    away = torch.randn(COUNT, *SHAPE, generator=generator)
    away = away / away.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    distance = torch.linspace(0.25, 0.35, COUNT) + 0.3 * labels()
    return Sound().prototype + distance.view(-1, 1, 1, 1) * away


class Sound(nn.Module):
    """The distance to a prototype."""

    prototype: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("prototype", 0.4 + 0.2 * torch.rand(SHAPE, generator=generator))
        self.eval()

    def score(self, images: Tensor) -> Tensor:
        return torch.linalg.vector_norm((images - self.prototype).flatten(1), dim=1)


class Rounded(Sound):
    """A gradient that is zero almost everywhere."""

    def score(self, images: Tensor) -> Tensor:
        return torch.round(20 * super().score(images)) / 20


class StraightThrough(Sound):
    """Rounded too, but the gradient pretends that it is not."""

    def score(self, images: Tensor) -> Tensor:
        scores = super().score(images)
        return scores + (torch.round(20 * scores) / 20 - scores).detach()


class Saturated(Sound):
    """A probability without digits left to tell images apart."""

    def score(self, images: Tensor) -> Tensor:
        return torch.sigmoid(500 * (super().score(images) - 0.1))


class RandomResize(Sound):
    """Resized to a size from the global generator, and back: never the same score twice."""

    def score(self, images: Tensor) -> Tensor:
        size = int(torch.randint(2, 5, ()))
        small = nn.functional.interpolate(images, size=(size, size), mode="bilinear")
        back = nn.functional.interpolate(small, size=SHAPE[1:], mode="bilinear")
        return super().score(back + 0.01 * torch.randn(()))


class CutGradient(Sound):
    """The gradient is cut off, and one of something else is in its place."""

    def score(self, images: Tensor) -> Tensor:
        other = torch.sin(1000 * images).flatten(1).sum(1)
        return super().score(images.detach()) + (other - other.detach())


class Coupled(Sound):
    """A batch norm that never left training: the score is relative to the other images of the batch."""

    def score(self, images: Tensor) -> Tensor:
        scores = super().score(images)
        return scores - 0.5 * scores.mean()


class Reseeding(Sound):
    """Repeatable, since it seeds the global generator; so is then everything else that draws from it."""

    def score(self, images: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().score(images + 0.01 * torch.rand(SHAPE))


class Grained(Sound):
    """Its weak spots are finer than 1/255: what attacks it is gone once an image is stored."""

    def score(self, images: Tensor) -> Tensor:
        return super().score(images) + 0.2 * torch.sin(2 * torch.pi * 255 * images).flatten(1).sum(1)
