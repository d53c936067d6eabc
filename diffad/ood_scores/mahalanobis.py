"""Gaussians on the features of a classifier: the distance to the nearest class, plain or less that to all normals.

mahalanobis            min_k d_k(x),            d_k = (f(x) - mu_k)' S^-1 (f(x) - mu_k)     Lee et al., NeurIPS 2018
relative_mahalanobis   min_k d_k(x) - d_0(x)    d_0 to the mean and covariance of all       Ren et al., 2021
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_positive
from certify.types import ScoreFunction
from diffad.attacks.summaries import soft_minimum
from diffad.ood_scores.on_backbone import BackboneScore

RIDGE = 1e-6


class Mahalanobis(BackboneScore):
    """Squared Mahalanobis distance of the features to the nearest class mean, one covariance for all classes.

    One class of training images is one Gaussian, as in one-class detection. Means and whitening are kept in float64.
    pytorch-ood divides the same score by 2 n, n training images, since it takes the sum of outer products for the
    covariance and half the distance; its ridge of 1e-6 on that sum is one of 1e-6 / n here.

    Args:
        ridge: added to the variance along every direction, so that features which the normals never use (a unit that
            never fires) count much, not infinitely.
    """

    name: ClassVar[str] = "mahalanobis"
    needs_head: ClassVar[bool] = False
    min_images = 2
    means: Tensor
    whitening: Tensor

    def __init__(self, ridge: float = RIDGE) -> None:
        super().__init__()
        self.ridge = check_positive(ridge, "ridge")
        for name in ("means", "whitening"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def _fit_classes(self, train: Tensor) -> None:
        labels, names = self._seen_classes(train)
        self._fit_gaussians(self._collect(self.features, train), labels, names)

    def _fit_gaussians(self, features: Tensor, labels: Tensor, names: tuple[str, ...]) -> None:
        labels, centred = labels.to(features.device), features.clone()
        members = [labels == k for k in sorted(set(labels.tolist()))]
        self.means = torch.stack([features[own].mean(0) for own in members])
        for own, mean in zip(members, self.means, strict=True):
            centred[own] -= mean
        self.whitening = whitening(centred, self.ridge)
        self.fit_info["classes"] = len(members)

    def class_distances(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return the float64 squared distance to each class, in the order of the means; differentiable."""
        return squared_distances(self.features(images).to(self.means), self.means, self.whitening)

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return self.class_distances(images).amin(1).to(images)

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return `soft_classes`: a soft minimum over the classes, whose gradient does not jump between them."""
        return {"soft_classes": lambda images: soft_minimum(self.class_distances(images)).to(images)}


class RelativeMahalanobis(Mahalanobis):
    """Mahalanobis distance to the nearest class less that to one Gaussian of all normals.

    What all images have in common cancels, which helps where anomalies are near the classes. One class alone is
    refused: both Gaussians would be the same and the score 0 for every image. pytorch-ood's score is this one over n.
    """

    name: ClassVar[str] = "relative_mahalanobis"
    background_mean: Tensor
    background_whitening: Tensor

    def __init__(self, ridge: float = RIDGE) -> None:
        super().__init__(ridge)
        for name in ("background_mean", "background_whitening"):
            self.register_buffer(name, torch.empty(0, dtype=torch.float64))

    def _fit_gaussians(self, features: Tensor, labels: Tensor, names: tuple[str, ...]) -> None:
        if len(set(labels.tolist())) < 2:
            raise InputError(
                f"relative_mahalanobis: all training images are of class {names[int(labels[0])]!r}, whose Gaussian is "
                "that of all normals, so that every score would be 0; use mahalanobis, or several normal classes"
            )
        super()._fit_gaussians(features, labels, names)
        self.background_mean = features.mean(0, keepdim=True)
        self.background_whitening = whitening(features - self.background_mean, self.ridge)

    def class_distances(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """Return for each class its float64 squared distance less that to all normals; differentiable."""
        plain, background = self._distances(images)
        return plain - background

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return `soft_classes`: a soft minimum over the plain distances, less that to all normals.

        Its temperature follows the distances; a difference of two may be near 0, and the minimum as good as hard.
        """

        def soft_classes(images: Tensor) -> Tensor:
            plain, background = self._distances(images)
            return (soft_minimum(plain) - background[:, 0]).to(images)

        return {"soft_classes": soft_classes}

    def _distances(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, Tensor]:
        """Return the squared distances to each class (b, k) and to all normals (b, 1)."""
        features = self.features(images).to(self.means)
        background = squared_distances(features, self.background_mean, self.background_whitening)
        return squared_distances(features, self.means, self.whitening), background


def whitening(centred: Float[Tensor, "n d"], ridge: float) -> Float[Tensor, "d d"]:
    """Return W with W W' = (C + ridge I)^-1, C the mean of outer products of centred features.

    From the eigenvectors of C: a distance |z W|^2 is never negative, whatever is rounded.
    """
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    whitened: Tensor = vectors * (values.clamp(min=0.0) + ridge).rsqrt()
    return whitened


def squared_distances(
    features: Float[Tensor, "b d"], means: Float[Tensor, "k d"], whitened_by: Float[Tensor, "d d"]
) -> Float[Tensor, "b k"]:
    """Return |(f - mu) W|^2 for each feature and mean."""
    # differences are formed first: the squares of far features would swallow a small distance
    return torch.stack([((features - mean) @ whitened_by).square().sum(1) for mean in means], 1)
