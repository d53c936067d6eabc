"""What a smaller bank and an approximate index do to the score, measured on normals while fitting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffad.fast_neighbours import nearest_verified
from diffad.neighbours import random_choice

MEASURED = 2048  # normals at most
# distances (n, k), ascending -> scores (n,)
Summary = Callable[[Tensor], Tensor]
# queries, k -> distances (n, k), ascending, and places in the bank
Search = Callable[[Tensor, int], tuple[Tensor, Tensor]]


def copies(images: Float[Tensor, "n c h w"]) -> int:
    """Return how many images repeat an earlier one, bit for bit."""
    seen = {hashlib.sha256(image.contiguous().cpu().numpy().tobytes()).digest() for image in images}
    return len(images) - len(seen)


def coreset_change(
    features: Float[Tensor, "n d"], kept: Int[Tensor, " m"], k: int, summary: Summary, seed: int
) -> dict[str, float]:
    """Return by how much the score of normals that were left out exceeds their score against all other normals.

    Never negative: the bank kept is part of all others. Up to `MEASURED` of the normals left out, drawn by `seed`.

    Returns:
        `coreset_change_mean` and `coreset_change_max` in units of the score, and `score_mean`, to compare with: the
        mean score of the same normals against all others.
    """
    left = torch.ones(len(features), dtype=torch.bool, device=features.device)
    left[kept] = False
    places = left.nonzero()[:, 0]
    places = places[random_choice(len(places), MEASURED, seed=seed).to(places.device)]
    whole = summary(others(features, places, k))
    change = summary(nearest_verified(features[places], features[kept], k)[0]) - whole
    return {
        "coreset_change_mean": float(change.mean()),
        "coreset_change_max": float(change.max()),
        "score_mean": float(whole.mean()),
    }


def index_recall(
    bank: Float[Tensor, "n d"], search: Search, k: int, summary: Summary, seed: int
) -> dict[str, float]:
    """Return what an approximate search finds of the k nearest other normals of each normal in the bank.

    On up to `MEASURED` of them, drawn by `seed`. Images unlike the normals are searched less well than this.

    Returns:
        `index_recall`, the share of neighbours found (a copy counts as the point itself), and `index_change_mean` and
        `index_change_max`, by how much the score rises for those missed.
    """
    places = random_choice(len(bank), MEASURED, seed=seed).to(bank.device)
    true = others(bank, places, k)
    distances, found = search(bank[places], k + 1)
    # without the point itself, or, where it was missed, the last
    own = (found == places[:, None]).double()
    own[:, -1] += own.sum(1) == 0
    distances = distances[own == 0].view(-1, k)
    change = summary(distances) - summary(true)
    return {
        "index_recall": float((distances <= true[:, -1:]).double().mean()),
        "index_change_mean": float(change.mean()),
        "index_change_max": float(change.max()),
    }


def others(features: Float[Tensor, "n d"], places: Int[Tensor, " m"], k: int) -> Float[Tensor, "m k"]:
    """Return the distances of some features to the k nearest of all others: the first found is the point itself."""
    return nearest_verified(features[places], features, k + 1)[0][:, 1:]
