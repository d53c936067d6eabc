"""Toy detectors on 4 x 4 images for `attack_check.py`: their worst cases are known, or hard to find by gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

SHAPE = (1, 4, 4)


class Linear(nn.Module):
    """A linear score: certificate and worst case coincide."""

    def score(self, images: Tensor) -> Tensor:
        """Mean pixel, scaled."""
        return images.flatten(1).sum(1)


class Distance(nn.Module):
    """Squared distance to grey."""

    def score(self, images: Tensor) -> Tensor:
        """Sum of squares."""
        return (images - 0.5).flatten(1).square().sum(1)


class Ripples(nn.Module):
    """Many local extrema: gradients mislead."""

    def score(self, images: Tensor) -> Tensor:
        """Sum of cosines and the largest pixel."""
        return torch.cos(6.0 * images).flatten(1).sum(1) + 2.0 * images.flatten(1).amax(1)


class Pair(nn.Module):
    """Reconstruction error against the clean image, L = 1."""

    pair_lipschitz = 1.0

    def score_pair(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        """L2 distance of the two."""
        return (reference - reconstruction).flatten(1).square().sum(1).add(1e-12).sqrt()

    def score(self, images: Tensor) -> Tensor:
        """Error of reconstructing the image itself."""
        return self.score_pair(images, self.reconstruct(images, 0.0))

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        """Of `noisy` alone."""
        raise TypeError("a toy without a denoiser")


class Tight(Pair):
    """The construction that attains the split certificate: the reconstruction flees along one direction."""

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        """Grey, moved against the mean pixel."""
        along = (noisy - 0.5).flatten(1).mean(1)
        return 0.5 - along[:, None, None, None].expand_as(noisy)


class RandomNetwork(Pair):
    """A random two-layer network as denoiser."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(16, 32, generator=generator) / 4, requires_grad=False)
        self.second = nn.Parameter(torch.randn(32, 16, generator=generator) / 6, requires_grad=False)

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        """Two layers with a ReLU."""
        return ((noisy.flatten(1) @ self.first).relu() @ self.second).reshape(noisy.shape)


def toys() -> Iterator[tuple[Any, str, tuple[float, ...], bool]]:
    """Yield (detector, way, sigmas, grid); several sigmas are a sum over noise levels."""
    for sigma in (0.25, 1.0):
        for detector in (Linear(), Distance(), Ripples()):
            yield detector.eval(), "input", (sigma,), False
        for detector in (Tight(), RandomNetwork()):
            yield detector.eval(), "reference", (sigma,), False
        yield RandomNetwork().eval(), "denoise", (sigma,), False
    yield Distance().eval(), "input", (0.25,), True
    yield Tight().eval(), "reference", (0.25,), True
    yield Linear().eval(), "input", (0.25, 0.5), False
    yield Tight().eval(), "reference", (0.25, 1.0), False
