"""What tells data sets apart besides what they show: traces of resampling, and the order of colour channels.

Images of another set may have been enlarged, shrunk or saved in another way, and a detector may see that alone. These
are copies of normal images that differ from them in such a trace only; whatever separates a normal from its copy is
not about its content.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from sklearn.metrics import roc_auc_score
from torch import Tensor

from diffad.data.protocols import outlier_set
from diffad.data.records import ImageSet


def resampled(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Return images shrunk to half their size and enlarged again, bilinearly: their finest detail is gone."""
    height, width = images.shape[2:]

    def resize(these: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(these, size=size, mode="bilinear", align_corners=False, antialias=True)

    half = (max(1, height // 2), max(1, width // 2))
    return resize(resize(images, half), (height, width)).clamp(0.0, 1.0)


def reordered(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Return colour images with their channels in reverse: BGR of RGB."""
    return images.flip(1)


def roughness(images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Return the energy of second differences over that of first ones: high for detail at the scale of a pixel.

    Contrast and brightness divide out; an image without any detail has 0. Interpolation lowers it.
    """
    first = second = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    for axis in (2, 3):
        slope = images.double().diff(dim=axis)
        first = first + slope.square().mean((1, 2, 3))
        second = second + slope.diff(dim=axis).square().mean((1, 2, 3))
    return torch.where(first > 0, second / first.clamp(min=1e-300), 0.0)


def cue_probe(test: ImageSet) -> dict[str, Any]:
    """Return how far roughness alone separates the normals from each outlier set, ready for JSON.

    `roughness_auroc` maps each set to max(a, 1 - a), a the AUROC of roughness against the normals: .5 means no trace,
    1 that no content need be looked at. `roughness_auroc_resampled` is the same for the normals against their own
    resampled copies: what resampling alone can do to this number.
    """
    found = roughness(test.images)
    normal = found[test.labels == 0]
    sets = [outlier_set(defect) for defect in test.defects]
    return {
        "roughness_auroc": {
            name: separation(normal, found[[own == name for own in sets]])
            for name in sorted({own for own, label in zip(sets, test.labels.tolist(), strict=True) if label})
        },
        "roughness_auroc_resampled": separation(normal, roughness(resampled(test.normals().images))),
    }


def separation(one: Float[Tensor, " n"], other: Float[Tensor, " m"]) -> float:
    """Return max(a, 1 - a) of the AUROC a between two sets of values."""
    area = float(roc_auc_score([0] * len(one) + [1] * len(other), torch.cat([one, other]).cpu().numpy()))
    return max(area, 1.0 - area)
