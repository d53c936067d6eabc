"""What the principal components of the normal images leave over."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_probability
from certify.types import FloatArray
from diffad.detector import Detector
from diffad.precision import one_thread
from diffad.rounding import enclose, gamma, norm_fault

LONGEST = 1.4  # most that the spectral norm of the components may be: below the root of 2


class PCA(Detector):
    """L2 norm of the residual of an image after projection on the principal components of the normal images.

    The score is |(I - V V^T)(x - mean)| with one component a column of V. I - V V^T has the eigenvalues 1 and
    1 - s^2 for the singular values s of V, so its norm is 1 for every V with s^2 <= 2: L = 1 holds for the
    stored V, however it was rounded, and is attained off the components. A folder of longer ones is refused.

    Args:
        n_components: number of components, below the number of training images and of pixels; None takes the
            fewest that explain `explained_variance`.
        explained_variance: share of the variance of the training images, between 0 and 1.
    """

    name = "pca"
    lipschitz = 1.0
    map_lipschitz = 1.0  # a pixel is a restriction of the residual
    mean: Tensor
    components: Tensor

    def __init__(self, n_components: int | None = None, explained_variance: float = 0.9) -> None:
        super().__init__()
        if n_components is not None and n_components < 1:
            raise InputError(f"pca: got n_components = {n_components}, need at least 1, or None")
        self.n_components = n_components
        self.explained_variance = check_probability(explained_variance, "explained_variance")
        self.min_images = 2 if n_components is None else n_components + 1
        self.register_buffer("mean", torch.empty(0, dtype=torch.float64))
        self.register_buffer("components", torch.empty(0, dtype=torch.float64))

    def _fit(self, train: Tensor, seed: int) -> None:
        points = train.double().flatten(1)
        pixels = points.shape[1]
        if self.n_components is not None and self.n_components >= pixels:
            raise InputError(
                f"pca: got n_components = {self.n_components} for {pixels} pixels, need fewer than pixels"
            )
        with one_thread():  # the fingerprint then is the same whatever the number of threads
            self.mean = points.mean(0, keepdim=True)
            _, singular, rows = torch.linalg.svd(points - self.mean, full_matrices=False)
        count = self.n_components
        if count is None:
            explained = singular.square().cumsum(0) / singular.square().sum().clamp(min=1e-300)
            count = int((explained < self.explained_variance).sum()) + 1
            count = min(count, len(points) - 1, pixels - 1)
        self.components = rows[:count].clone()

    def _unproven(self) -> str:
        return norm_fault({"components": self.components}, LONGEST)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return self._residual_norm(images).to(images.dtype)

    def score_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b,) of the exact residual norm for the stored mean and components.

        With y = x - mean, d pixels, k components and F = |V|_F, the computed V^T y is off by at most
        gamma(d) F |y|, and the computed residual by at most gamma(d + k + 3) (1 + F)^2 |y| in norm.
        """
        self._check_input(images)
        with torch.no_grad():
            norms = self._residual_norm(images).cpu().numpy()
        return enclose(norms, self.components.shape[1], absolute=self._residual_error(images))

    def anomaly_map(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Return the size of the residual at each pixel, as an L2 norm over the channels."""
        self._check_input(images)
        return self._map(images).to(images.dtype)

    def map_interval(self, images: Float[Tensor, "b c h w"]) -> tuple[FloatArray, FloatArray]:
        """Return float64 bounds (b, h, w) of the exact map; the error of a pixel is at most that of the residual."""
        self._check_input(images)
        norms = self._map(images).cpu().numpy()
        return enclose(norms, images.shape[1], absolute=self._residual_error(images)[:, None, None])

    def _map(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            norms: Tensor = torch.linalg.vector_norm(self._residual(images).reshape(images.shape), dim=1)
        return norms

    def _residual_error(self, images: Tensor) -> FloatArray:
        """Return how far the computed residual of each image may be off in norm (b,): see `score_interval`."""
        with torch.no_grad():
            centred = images.double().flatten(1) - self.mean
            size: FloatArray = torch.linalg.vector_norm(centred, dim=1).cpu().numpy()
        count, pixels = self.components.shape
        frobenius = float(torch.linalg.matrix_norm(self.components))
        return 2.0 * gamma(pixels + count + 3) * (1.0 + frobenius) ** 2 * size

    def _residual(self, images: Tensor) -> Tensor:
        centred = images.double().flatten(1) - self.mean
        return centred - (centred @ self.components.T) @ self.components

    def _residual_norm(self, images: Tensor) -> Tensor:
        norms: Tensor = torch.linalg.vector_norm(self._residual(images), dim=1)
        return norms
