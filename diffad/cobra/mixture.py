"""A Gaussian mixture on embeddings of normal images, and how unlikely another image is under it.

Fitted by scikit-learn, kept as tensors: no pickle, and the same numbers on any device.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from certify.checks import InputError, check_positive

M = TypeVar("M", bound="Mixture")


class Mixture(nn.Module):
    """Log-density of a Gaussian mixture of full covariances, in float64, and empirical p-values.

    Attributes:
        weights: (k,) of the components.
        means: (k, d).
        precisions: (k, d, d), upper triangular U with U U^T the inverse covariance (scikit-learn's
            `precisions_cholesky_`).
        centre, directions: (D,) and (d, D); embeddings are taken to directions (embedding - centre) first. Empty: not.
        held_out: (n,) sorted log-densities of normal images that the mixture was not fitted on.
    """

    weights: Tensor
    means: Tensor
    precisions: Tensor
    centre: Tensor
    directions: Tensor
    held_out: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("weights", "means", "precisions", "centre", "directions", "held_out"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    @classmethod
    def fit(
        cls: type[M],
        embeddings: Float[Tensor, "n d"],
        held_out: Float[Tensor, "m d"],
        *,
        components: int = 1,
        reg_covar: float = 1e-4,
        pca: int | None = 64,
        seed: int = 0,
    ) -> M:
        """Fit on embeddings of normal images; `held_out` are those of other normals, to compare with.

        Log-densities of the images that were fitted on are too high: with them, more than a share `level` of new
        normals would have a p-value below `level`.

        Args:
            embeddings: of the normals to fit on.
            held_out: of other normals; p-values are at least 1 / (m + 1).
            components: Gaussians; COBRA does not give the number, its released code uses 1.
            reg_covar: added to the diagonal of the covariances.
            pca: keep so many principal directions where there are more; None: all. A full covariance of few images is
                nearly singular.
            seed: starts EM.

        Raises:
            InputError: too few embeddings, or values that are not finite.
        """
        check_positive(reg_covar, "reg_covar")
        if components < 1 or (pca is not None and pca < 1):
            raise InputError(f"components, pca: got {components}, {pca}; need at least 1 (pca: or None)")
        if len(embeddings) < max(2, 2 * components) or len(held_out) < 1:
            raise InputError(
                f"mixture: got {len(embeddings)} embeddings and {len(held_out)} held-out ones for {components} "
                "components; need at least 2 a component, and 1"
            )
        if not bool(torch.isfinite(embeddings).all() and torch.isfinite(held_out).all()):
            raise InputError("mixture: embeddings hold NaN or infinity; the classifier has diverged")
        mixture = cls()
        points = embeddings.detach().cpu().double().numpy()
        if pca is not None and pca < points.shape[1]:
            found = PCA(min(pca, len(points)), svd_solver="full").fit(points)
            mixture.centre = torch.from_numpy(np.ascontiguousarray(found.mean_))
            mixture.directions = torch.from_numpy(np.ascontiguousarray(found.components_))
            points = found.transform(points)
        fitted = GaussianMixture(components, reg_covar=reg_covar, max_iter=500, random_state=seed).fit(points)
        mixture.weights = torch.from_numpy(fitted.weights_)
        mixture.means = torch.from_numpy(fitted.means_)
        mixture.precisions = torch.from_numpy(fitted.precisions_cholesky_)
        mixture.held_out = mixture.log_prob(held_out.detach().cpu()).sort().values
        return mixture.to(embeddings.device)

    def log_prob(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Return the log-density of each embedding, float64."""
        if len(self.weights) == 0:
            raise InputError("mixture: is not fitted; call Mixture.fit, or load a filter")
        points = embeddings.double()
        if len(self.centre):
            points = (points - self.centre) @ self.directions.T
        white = (points[:, None, None] - self.means[:, None]) @ self.precisions  # (b, k, 1, d)
        size = self.means.shape[1]
        volume = self.precisions.diagonal(dim1=1, dim2=2).log().sum(1)
        densities = volume - 0.5 * (white.square().sum((2, 3)) + size * math.log(2 * math.pi))
        return (self.weights.log() + densities).logsumexp(1)

    def p_values(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
        """Return (1 + held-out normals that are no more likely) / (n + 1), float64 in (0, 1].

        For a new normal image, exchangeable with the n held-out ones, it is at most p with probability at most p: the
        paper's empirical distribution function, as a valid p-value.
        """
        log_probs = self.log_prob(embeddings)
        below = torch.searchsorted(self.held_out, log_probs, right=True)
        return (1.0 + below.double()) / (len(self.held_out) + 1)
