"""Distance to the mean of the normal images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from certify.types import FloatArray
from diffad.detector import Detector
from diffad.neighbours import pair_distance
from diffad.rounding import enclose


class PixelMean(Detector):
    """L2 distance of an image to the mean normal image.

    A distance to a fixed point is 1-Lipschitz by the triangle inequality. The limit, for large sigma, of any
    reconstruction error whose denoiser is the posterior mean.
    """

    name = "pixel_mean"
    lipschitz = 1.0
    map_lipschitz = 1.0  # a pixel is a restriction of the image
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0, dtype=torch.float64))

    def _fit(self, train: Tensor, seed: int) -> None:
        self.mean = train.double().flatten(1).mean(0, keepdim=True)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return self._distance(images).to(images.dtype)

    def score_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b,) of the exact distance to the stored mean."""
        self._check_input(images)
        with torch.no_grad():
            return enclose(self._distance(images).cpu().numpy(), self.mean.numel())

    def anomaly_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Return the size of the difference to the mean at each pixel, as an L2 norm over the channels."""
        self._check_input(images)
        return self._map(images).to(images.dtype)

    def map_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b, h, w) of the exact map."""
        self._check_input(images)
        return enclose(self._map(images).cpu().numpy(), images.shape[1])

    def _map(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            difference = (images.double().flatten(1) - self.mean).reshape(images.shape)
            norms: Tensor = torch.linalg.vector_norm(difference, dim=1)
        return norms

    def _distance(self, images: Tensor) -> Tensor:
        return pair_distance(images.flatten(1), self.mean.expand(images.shape[0], -1))
