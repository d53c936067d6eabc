"""Keyed Gaussian noise and the scores drawn under it.

The noise of an image is a function of (seed, purpose, image index, chunk) alone, so the same numbers come out
whatever the batch size, the order of the images, the number of processes, or a resume in between. A forward
batch holds chunks of one image and always has the full batch size, because float32 results depend on the
shape of the batch: its composition depends only on the image index, the chunk numbers and the batch size, not
even on n.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_choice, check_images, check_positive
from certify.console import progress
from certify.store import ScoreStore
from certify.types import FloatArray

# Draws for different purposes are independent: what certifies a guess or a threshold must not have made it.
PURPOSES = {"select": 0, "certify": 1, "calibrate": 2, "predict": 3, "evaluate": 4, "attack": 5}
NOISE_CHUNK = 50


# A score under noise: float32 `clean` (1, c, h, w) and `noisy` (b, c, h, w) to (b,) or (b, columns).
NoisyScore: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def gaussian_noise(seed: int, image_index: int, purpose: str, chunk: int, shape: Sequence[int]) -> FloatArray:
    """Return standard normal noise of `shape` in float64, a function of its arguments alone (numpy's Philox).

    The global random state of numpy and torch is neither read nor changed. numpy keeps its bit streams over
    versions but not its normal variates, so the version belongs in a run's record (`sampling_config`).
    """
    check_choice(purpose, tuple(PURPOSES), "purpose")
    if seed < 0 or image_index < 0 or chunk < 0:
        raise InputError(
            f"noise: got seed {seed}, image {image_index}, chunk {chunk}; need values of at least 0"
        )
    sequence = np.random.SeedSequence(seed, spawn_key=(PURPOSES[purpose], image_index, chunk))
    return np.random.Generator(np.random.Philox(sequence)).standard_normal(tuple(shape))


def noise_chunk_count(n: int) -> int:
    """Return the number of noise chunks that hold `n` draws."""
    return math.ceil(n / NOISE_CHUNK)


def sampling_config(*, sigma: float, seed: int, purpose: str, batch_size: int) -> dict[str, Any]:
    """Return the sampling options that determine the scores, for the configuration of a `ScoreStore`.

    n is not among them: a larger n continues the same draws.
    """
    return {
        "sigma": float(sigma),
        "seed": int(seed),
        "purpose": purpose,
        "batch_size": int(batch_size),
        "noise_chunk": NOISE_CHUNK,
        "numpy": np.__version__,
    }


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
    device: str | torch.device = "cpu",
    store: ScoreStore | None = None,
    label: str = "noisy scores",
) -> FloatArray:
    """Score each image under `n` draws of Gaussian noise.

    Noise is drawn and added in float64 and the sum is cast to float32 once; nothing is clipped.

    Args:
        base: the score of (clean, noisy); it must not couple the images of a batch.
        images: in [0, 1].
        indices: one index >= 0 an image, which keys its noise: the position in the data set, never in a
            batch.
        sigma: standard deviation of the noise, in pixel units of [0, 1].
        n: draws an image.
        seed: master key, >= 0.
        purpose: one of PURPOSES.
        batch_size: images a forward pass, a multiple of NOISE_CHUNK; the last batch of an image is filled
            with draws beyond n, so choose a divisor of n.
        device: where `base` computes.
        store: keeps finished batches and returns those kept; its configuration must hold
            `sampling_config(...)`.
        label: what the progress bar says.

    Returns:
        float64 (images, n), or (images, n, columns) if `base` returns columns. NaN is passed on.

    Raises:
        InputError: for arguments outside these ranges, or a score of the wrong shape.
    """
    check_images(images)
    check_positive(sigma, "sigma")
    indices = check_indices(indices, len(images))
    if n < 1:
        raise InputError(f"n: got {n}, need at least one draw")
    if batch_size < 1 or batch_size % NOISE_CHUNK:
        raise InputError(
            f"batch_size: got {batch_size}, need a multiple of {NOISE_CHUNK}, the size of a noise chunk"
        )
    if store is not None:
        _check_store(
            store, sampling_config(sigma=sigma, seed=seed, purpose=purpose, batch_size=batch_size), indices
        )
    pixels = images.detach().to("cpu", torch.float64).numpy()
    digests = [_digest(image) for image in pixels]
    parts: list[list[FloatArray]] = [[] for _ in indices]
    pending: list[tuple[int, range]] = []
    for row, index in enumerate(indices):
        kept = store.get(index, digests[row]) if store is not None else None
        if kept is not None:
            parts[row].append(kept)
        done = 0 if kept is None else len(kept) // batch_size
        pending += [(row, _chunks_of(batch, batch_size)) for batch in range(done, math.ceil(n / batch_size))]
    for row, chunks in progress(pending, label):
        scores = _forward(base, pixels[row], indices[row], chunks, sigma, seed, purpose, device)
        if store is not None:
            store.put(indices[row], chunks, scores, digests[row])
        parts[row].append(scores)
    return np.stack([np.concatenate(part)[:n] for part in parts])


def check_indices(indices: Sequence[int], count: int) -> list[int]:
    """Return image indices as a list of ints >= 0, one an image."""
    array = np.asarray(indices)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer) or (array < 0).any():
        raise InputError(
            f"indices: got {array.dtype} of shape {array.shape}, need {count} integers of at least 0"
        )
    return [int(index) for index in array]


def _chunks_of(batch: int, batch_size: int) -> range:
    chunks = batch_size // NOISE_CHUNK
    return range(batch * chunks, (batch + 1) * chunks)


def _forward(
    base: NoisyScore,
    pixels: FloatArray,
    index: int,
    chunks: range,
    sigma: float,
    seed: int,
    purpose: str,
    device: str | torch.device,
) -> FloatArray:
    """Score one batch, all of the noise chunks `chunks` of one image."""
    noise = np.stack(
        [gaussian_noise(seed, index, purpose, chunk, (NOISE_CHUNK, *pixels.shape)) for chunk in chunks]
    )
    noise *= sigma
    noise += pixels
    noisy = rearrange(noise, "chunk draw c h w -> (chunk draw) c h w").astype(np.float32)
    clean = pixels[None].astype(np.float32)
    with torch.no_grad():
        scores = base(torch.from_numpy(clean).to(device), torch.from_numpy(noisy).to(device))
    if not isinstance(scores, Tensor) or scores.ndim not in (1, 2) or len(scores) != len(noisy):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(
            f"score: got {got} for {len(noisy)} images, need a tensor ({len(noisy)},), one score an image"
        )
    return scores.detach().to("cpu", torch.float64).numpy()


def _check_store(store: ScoreStore, needed: dict[str, Any], indices: list[int]) -> None:
    for name, value in needed.items():
        if store.config.get(name, "absent") != value:
            raise InputError(
                f"store {store.folder}: {name} is {store.config.get(name, 'absent')!r} in its configuration "
                f"and {value!r} for these draws"
            )
    if len(set(indices)) < len(indices):
        raise InputError("indices: got an index twice; a store keeps one image an index")


def _digest(image: FloatArray) -> str:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
