"""Distance to the nearest normal image, real or drawn by a diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from certify.checks import InputError
from diffad.baselines.pixel_nn import PixelNN
from diffad.generate import LEVELS, generate

G = TypeVar("G", bound="GeneratedNN")


@runtime_checkable
class Generator(Protocol):
    """What is needed of a denoiser: a `DiffusionDetector` has it."""

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        """Return the clean image, given the image plus N(0, sigma^2) noise."""


class GeneratedNN(PixelNN):
    """Sum of the L2 distances to the k nearest of the normal images and of those that a diffusion model drew.

    `PixelNN` on a bank that a network has filled. Few normal images leave gaps between them, and a network that has
    learned what normals look like fills them. L = k whatever is in the bank, so the certificate needs neither noise nor
    trust in the network, which an attacker of the score never meets: it is used by `fit` alone, and not saved.

    Args:
        k: number of neighbours.
        generated: images drawn beside the training images.
        sigmas: noise of the steps that draw them, falling, in [0, 1] pixel units (`diffad.generate`).
    """

    name = "generated_nn"

    def __init__(self, k: int = 1, generated: int = 2000, sigmas: Sequence[float] = LEVELS) -> None:
        super().__init__(k)
        if generated < 1:
            raise InputError(f"generated_nn: got generated = {generated}, need at least 1; pixel_nn has none")
        self.generated = generated
        self.sigmas = [float(sigma) for sigma in sigmas]
        self._generator: Generator | None = None

    def attach(self: G, generator: Generator) -> G:
        """Draw images from this model at the next `fit`; it must have been trained on the same normals."""
        # not registered as a module: neither saved nor moved with the detector
        object.__setattr__(self, "_generator", generator)
        return self

    def _fit(self, train: Tensor, seed: int) -> None:
        if self._generator is None:
            raise InputError(
                "generated_nn: has no generator; `diffad fit --detector generated_nn --generator FOLDER` takes that of "
                "a trained diffusion detector"
            )
        drawn = generate(self._generator.reconstruct, train, self.generated, sigmas=self.sigmas, seed=seed)
        super()._fit(torch.cat([train, drawn.to(train)]), seed)
