"""What a split says about itself: is the test already in the train part, or separable by copies alone?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import roc_auc_score
from torch import Tensor

from certify.console import progress
from diffad.data.records import ImageSet

NEAR = 0.7  # correlation above which two pictures count as near-duplicates
PROBE_SIDE = 64
WINDOW = 5
CHUNK = 512


def high_pass(images: Float[Tensor, "n c h w"]) -> Float32[Tensor, "n 1 side width"]:
    """Return grey images minus their local 5 x 5 mean, at most 64 pixels wide: structure without exposure."""
    grey = images.float().mean(dim=1, keepdim=True)
    if grey.shape[-1] > PROBE_SIDE:
        grey = F.interpolate(
            grey, size=(PROBE_SIDE, PROBE_SIDE), mode="bilinear", antialias=True, align_corners=False
        )
    margin = WINDOW // 2
    local = F.avg_pool2d(F.pad(grey, (margin,) * 4, mode="replicate"), WINDOW, stride=1)
    return grey - local


def correlation_with(
    images: Float[Tensor, "n c h w"], bank: Float[Tensor, "m c h w"]
) -> Float32[Tensor, "n m"]:
    """Return the correlation in [-1, 1] of high-pass images with those of a bank, less the bank's mean.

    Subtracting the bank's mean leaves what is individual: aligned objects are not all copies of each other.
    Blank images correlate 0 with everything.
    """
    return torch.cat(list(_correlations(images, bank)))


def near_duplicate_groups(images: Float[Tensor, "n c h w"], threshold: float = NEAR) -> list[list[int]]:
    """Return the connected components, of two images or more, where correlation exceeds `threshold`."""
    pairs = []
    for place, block in enumerate(_correlations(images, images)):
        pairs.append((block > threshold).nonzero().numpy() + np.array([place * CHUNK, 0]))
    row, column = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(row)), (row, column)), shape=(len(images), len(images)))
    count, component = connected_components(graph, directed=False)
    sizes = np.bincount(component, minlength=count)
    return [np.flatnonzero(component == c).tolist() for c in np.flatnonzero(sizes > 1)]


def probe(train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """Return counts, near-duplicates and defect sizes of a split, ready for JSON.

    `near_duplicate_auroc` is the AUROC of the score `-(highest correlation with a train image)`, normals
    against anomalies: what looking for copies alone achieves. `near_duplicates_normal` and `_anomalous` count
    the test images with a correlation above .7: far more normals than anomalies means that the split leaks.
    Defect sizes are L2 norms in pixels of [0, 1], present where the clean twin of a defect is known; one size
    an image is in `ImageSet.defect_l2`.
    """
    labels = test.labels.numpy()
    blocks = progress(_correlations(test.images, train.images), "looking for copies", -(-len(test) // CHUNK))
    highest = torch.cat([block.amax(dim=1) for block in blocks]).numpy()
    result: dict[str, Any] = {
        "test_normals": int((labels == 0).sum()),
        "test_anomalies": int((labels == 1).sum()),
        "near_duplicate_auroc": float(roc_auc_score(labels, -highest.astype(np.float64))),
        "near_duplicates_normal": int((highest[labels == 0] > NEAR).sum()),
        "near_duplicates_anomalous": int((highest[labels == 1] > NEAR).sum()),
    }
    if test.defect_l2 is not None:
        sizes = test.defect_l2.numpy()[labels == 1]
        names, shares = ("min", "median", "max"), (0.0, 0.5, 1.0)
        result |= {
            f"defect_l2_{name}": float(np.nanquantile(sizes, share))
            for name, share in zip(names, shares, strict=True)
        }
    return result


def _correlations(
    images: Float[Tensor, "n c h w"], bank: Float[Tensor, "m c h w"]
) -> Iterator[Float32[Tensor, "b m"]]:
    """Yield `correlation_with` a block of images at a time; the bank is prepared once for all of them."""
    shared = high_pass(bank).mean(dim=0, keepdim=True)
    columns = [_unit(high_pass(block) - shared) for block in torch.split(bank, CHUNK)]
    for block in torch.split(images, CHUNK):
        row = _unit(high_pass(block) - shared)
        yield torch.cat([row @ column.T for column in columns], dim=1).clamp(-1, 1)


def _unit(images: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n d"]:
    flat = images.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    norm = flat.norm(dim=1, keepdim=True)
    return torch.where(norm > 1e-4, flat / norm.clamp_min(1e-4), torch.zeros_like(flat))
