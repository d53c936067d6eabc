"""Reconstruction scores S(x, x~) of a residual rho = x - x~, and their Lipschitz constants in the reference x.

A split certificate (docs/certificates.md) needs |S(x', x~) - S(x, x~)| <= L ||x' - x||_2 for every x~. All scores
but `paper` are seminorms of rho, or maxima of seminorms minus constants, so L is the largest operator norm involved:

============== =================================================== ========================================
name           S                                                   L
============== =================================================== ========================================
paper          max_ij |Err_ms - M| (AdvRAD, arXiv 2408.04839)      none (a square is not Lipschitz)
root_max       max_ij |sqrt(Err_ms) - M_root|                      see `root_max_lipschitz`
l2             ||rho||_2                                           1
patch_max      max over k x k windows of the window's ||rho||_2    1 (a restriction does not lengthen)
patch_relative the same, windows weighed by `patch_weights`        1 (weights are constants in (0, 1])
============== =================================================== ========================================

M is the mean of Err_ms over normals, M_root that of its root. `patch_relative` is our own: where normals are
reconstructed badly (the border of a part, say) an error has to be larger to count.

Square roots are taken of (value + 1e-12): the norm of (rho, 1e-6), which has the same L and a gradient at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from certify.checks import InputError

ScoreName: TypeAlias = Literal["paper", "root_max", "l2", "patch_max", "patch_relative"]
SCORE_NAMES: tuple[ScoreName, ...] = ("paper", "root_max", "l2", "patch_max", "patch_relative")
PATCH_SCORES: tuple[ScoreName, ...] = ("patch_max", "patch_relative")  # those with a window
DEFAULT_SCALES: tuple[int, ...] = (1, 2, 4, 8)
TINY = 1e-12


def safe_root(squared: Tensor) -> Tensor:
    """Square root with a finite gradient at zero."""
    return (squared + TINY).sqrt()


def scales_for(image_shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Return those of AdvRAD's scales 1, 2, 4 and 8 that divide the image size (1, 2 and 4 for 28 x 28)."""
    _, height, width = image_shape
    return tuple(scale for scale in DEFAULT_SCALES if height % scale == 0 and width % scale == 0)


def multiscale_error(
    residual: Float[Tensor, "b c h w"], scales: Sequence[int] = DEFAULT_SCALES, filter_size: int = 3
) -> Float[Tensor, "b h w"]:
    """Err_ms: mean over scales of the upsampled channel-mean squared error, then a mean filter (AdvRAD, section 3).

    The residual is averaged over l x l blocks before it is squared; up goes bilinear; at the border the mean filter
    averages the pixels that exist. Every step after the square is an average, which is what bounds L.
    """
    height, width = residual.shape[-2:]
    total = torch.zeros_like(residual[:, :1])
    for scale in scales:
        if height % scale or width % scale:
            raise InputError(f"scales: {scale} does not divide the image size {height} x {width}")
        error = F.avg_pool2d(residual, scale).square().mean(1, keepdim=True)
        total = total + F.interpolate(error, size=(height, width), mode="bilinear", align_corners=False)
    return mean_filter(total / len(scales), filter_size)[:, 0]


def mean_filter(values: Float[Tensor, "b 1 h w"], size: int) -> Float[Tensor, "b 1 h w"]:
    """Average over a size x size neighbourhood (odd size), same shape, borders averaged over existing pixels."""
    if size % 2 == 0:
        raise InputError(f"filter_size: got {size}, need an odd number")
    return F.avg_pool2d(values, size, stride=1, padding=size // 2, count_include_pad=False)


def patch_norms(residual: Float[Tensor, "b c h w"], patch_size: int) -> Float[Tensor, "b rows columns"]:
    """L2 norm of the residual in every k x k window that lies inside the image, all channels together."""
    if patch_size > min(residual.shape[-2:]):
        raise InputError(f"patch_size: got {patch_size}, images are {tuple(residual.shape[-2:])}")
    squared = residual.square().sum(1, keepdim=True)
    return safe_root(F.avg_pool2d(squared, patch_size, stride=1)[:, 0] * patch_size**2)


def patch_weights(mean_error: Float[Tensor, "h w"], patch_size: int) -> Float[Tensor, "rows columns"]:
    """Weight in (0, 1] of every k x k window: the root of the least mean error of a window over its own.

    `mean_error` is the mean Err_ms of normals. The window where normals are reconstructed best has weight 1. The
    weights depend on no test image, so a weighted window norm keeps L = 1.
    """
    error = F.avg_pool2d(mean_error[None, None] + TINY, patch_size, stride=1)[0, 0]
    return (error.amin() / error).sqrt()


def l2_norm(residual: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Whole-image L2 norm of the residual."""
    return safe_root(residual.square().flatten(1).sum(1))


def root_max_lipschitz(
    image_shape: tuple[int, int, int], scales: Sequence[int] = DEFAULT_SCALES, filter_size: int = 3
) -> float:
    """A proven upper bound of L for `root_max`.

    Err_ms[p] = rho^T Q_p rho with Q_p = (1/C) sum_(l,q) w_plq d_lq d_lq^T, where d_lq are block-averaging rows
    (non-negative, sum 1) and w_plq >= 0 sum to 1. So sqrt(Err_ms[p]) is a seminorm with L^2 = lambda_max(Q_p), which
    for a non-negative symmetric matrix is at most its largest row sum, max_j (1/C) sum w_plq d_lq[j]: the response at
    p of the *linear* pipeline (average, upsample, filter) to a unit pixel j. We take the maximum over all p and j.
    """
    return _root_max_lipschitz(tuple(image_shape), tuple(scales), filter_size)


@lru_cache(maxsize=32)  # seconds at 64 x 64, and asked for at every turn
def _root_max_lipschitz(image_shape: tuple[int, ...], scales: tuple[int, ...], filter_size: int) -> float:
    channels, height, width = image_shape
    best, pixels = 0.0, height * width
    for start in range(0, pixels, 256):
        count = min(256, pixels - start)
        unit = torch.zeros(count, 1, pixels, dtype=torch.float64)
        unit[torch.arange(count), 0, start + torch.arange(count)] = 1.0
        unit = unit.reshape(count, 1, height, width)
        response = torch.zeros_like(unit)
        for scale in scales:
            averaged = F.avg_pool2d(unit, scale)
            response += F.interpolate(averaged, size=(height, width), mode="bilinear", align_corners=False)
        best = max(best, float(mean_filter(response / len(scales), filter_size).max()))
    # 1e-9 covers the rounding of the float64 sums above many times over
    return float((best / channels) ** 0.5 * (1.0 + 1e-9))


def pair_lipschitz(
    name: ScoreName, image_shape: tuple[int, int, int], scales: Sequence[int], filter_size: int
) -> float | None:
    """L of a score in the reference image; None where there is none (see the table above)."""
    if name == "paper":
        return None
    if name == "root_max":
        return root_max_lipschitz(image_shape, scales, filter_size)
    return 1.0
