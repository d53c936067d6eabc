"""A fixed number of noisy scores an image; `DrawPool` is the same with draws on demand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from certify.composition import check_indices
from certify.noise import NOISE_CHUNK, PURPOSES, gaussian_noise, noise_chunk_count
from certify.pool import DrawPool, NoisyScore, sampling_config
from certify.shards import Shard
from certify.store import ScoreStore
from certify.types import FloatArray

__all__ = [
    "NOISE_CHUNK",
    "PURPOSES",
    "NoisyScore",
    "check_indices",
    "gaussian_noise",
    "noise_chunk_count",
    "sample_scores",
    "sampling_config",
]


def sample_scores(
    base: NoisyScore,
    images: Float[Tensor, "b c h w"],
    indices: Sequence[int],
    *,
    sigma: float,
    n: int,
    seed: int,
    purpose: str,
    batch_size: int,
    images_per_batch: int = 1,
    device: str | torch.device = "cpu",
    store: ScoreStore | None = None,
    grid: bool = False,
    shard: Shard | None = None,
    label: str = "noisy scores",
    name: str = "score",
    probe: bool = True,
) -> FloatArray:
    """Score each image under `n` draws of Gaussian noise; arguments and errors as for `DrawPool`.

    Returns:
        float64 (images, n), or (images, n, columns) if `base` returns columns. NaN is passed on.
    """
    pool = DrawPool(
        base,
        images,
        indices,
        sigma=sigma,
        seed=seed,
        purpose=purpose,
        batch_size=batch_size,
        images_per_batch=images_per_batch,
        device=device,
        store=store,
        grid=grid,
        shard=shard,
        label=label,
        name=name,
        probe=probe,
    )
    return pool.all_draws(n)
