"""Backbones that project images on a few directions: random ones, or the principal components of another set.

Their rows are orthonormal up to rounding and shrunk to a spectral norm of at most 1, so features lie no farther apart
than the images do, and a distance of features is certified without noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_images
from diffad.backbones.backbone import Backbone
from diffad.backbones.linear import LinearProjection
from diffad.rounding import contraction


def random_projection(dim: int, side: int, in_channels: int = 3, *, seed: int = 0) -> Backbone:
    """Return a backbone that projects on `dim` orthonormal directions, uniform among all such (QR of a Gaussian)."""
    network = LinearProjection(dim, side, in_channels)
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(network.weight.shape[1], dim, generator=generator, dtype=torch.float64)
    return _backbone(network, torch.linalg.qr(gaussian).Q.T, {"projection": "random", "seed": seed})


def principal_projection(
    images: Float[Tensor, "n c h w"], dim: int, facts: Mapping[str, Any] | None = None
) -> Backbone:
    """Return a backbone that projects on the first `dim` principal components of unlabelled images in [0, 1].

    Nothing is whitened: that would stretch some directions, and the constant with them.

    Args:
        images: of another set than the one under test, square; more of them than `dim`.
        dim: number of components.
        facts: where the images come from, carried along in the folder.
    """
    check_images(images)
    count, channels, height, width = images.shape
    if height != width or count <= dim:
        raise InputError(
            f"linear: got {count} images {height} x {width} for dim {dim}; need square images, more than dim"
        )
    network = LinearProjection(dim, height, channels)
    points = images.double().flatten(1)
    _, singular, rows = torch.linalg.svd(points - points.mean(0), full_matrices=False)
    if not float(singular[dim - 1]) > 1e-12 * float(singular[0]):
        raise InputError(f"linear: the images vary along fewer than {dim} directions; lower dim")
    explained = float(singular[:dim].square().sum() / singular.square().sum())
    found = {"projection": "principal components", "images": count, "explained_variance": explained}
    return _backbone(network, rows[:dim], {**found, **(facts or {})})


def _backbone(network: LinearProjection, rows: Tensor, facts: Mapping[str, Any]) -> Backbone:
    with torch.no_grad():
        network.weight.copy_(contraction(rows))
    arguments = {"dim": network.dim, "side": network.side, "in_channels": network.channels}
    return Backbone(network, arch="linear", arguments=arguments, resolution=network.side, facts=facts)
