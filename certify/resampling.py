"""Resamples of a test set, each class by itself, and the AUROC of all of them at once.

A resample gives each image a count. The AUROC of a resample is a^T C b / (m n), with the counts a of the m anomalies, b
of the n normal images and C the credits of all pairs (1 for a win, one half for a tie), so that thousands of resamples
are a product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from certify.checks import InputError
from certify.types import FloatArray

Counts: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
BLOCK = 250  # resamples in one product


def resampled_rows(anomalies: int, normals: int, seed: int, resamples: int) -> Iterator[tuple[Any, Any]]:
    """Return indices of anomalies and of normal images, drawn with replacement; a function of seed and counts."""
    if resamples < 1:
        raise InputError(f"resamples: got {resamples}, need at least 1; 2000 serve a 95 % interval")
    if seed < 0:
        raise InputError(f"seed: got {seed}, need an integer of at least 0")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    return (
        (generator.integers(anomalies, size=anomalies), generator.integers(normals, size=normals))
        for _ in range(resamples)
    )


def resampled_aurocs(anomalies: FloatArray, normals: FloatArray, seed: int, resamples: int) -> FloatArray:
    """Return the AUROC (resamples,) of scores of anomalies (m,) against normals (n,) in each of `resampled_rows`.

    Anomalies at -inf and normal images at +inf lose, as in `auroc`. Memory for m * n credits.
    """
    m, n = anomalies.size, normals.size
    credits = pair_credits(anomalies, normals)
    of_anomalies, of_normals = resampled_counts(m, n, seed, resamples)
    found = np.empty(resamples, dtype=np.float64)
    for start in range(0, resamples, BLOCK):
        block = slice(start, start + BLOCK)
        # Twice the credits are whole numbers, so the sums are exact in any order.
        won = ((of_anomalies[block].astype(np.float64) @ credits) * of_normals[block]).sum(axis=1)
        found[block] = won / (2 * m * n)
    return found


def resampled_mean_aurocs(
    sets: Sequence[FloatArray], normals: FloatArray, seed: int, resamples: int
) -> FloatArray:
    """Return the unweighted mean over sets of anomalies of the AUROC against the same normals, in each resample.

    The normals (n,) are drawn once for all sets, so that their part in the spread does not average out; the anomalies
    (m,) of each set are drawn by themselves. A function of seed and counts; ends and memory as in `resampled_aurocs`.
    """
    if not sets:
        raise InputError("sets: got none, need the scores of the anomalies of at least one")
    of_normals = drawn_counts(normals.size, seed, 0, resamples)
    found = np.zeros(resamples, dtype=np.float64)
    for place, anomalies in enumerate(sets, 1):
        credits = pair_credits(anomalies, normals)
        of_anomalies = drawn_counts(anomalies.size, seed, place, resamples)
        for start in range(0, resamples, BLOCK):
            block = slice(start, start + BLOCK)
            won = ((of_anomalies[block].astype(np.float64) @ credits) * of_normals[block]).sum(axis=1)
            found[block] += won / (2 * anomalies.size * normals.size)
    return found / len(sets)


@lru_cache(maxsize=32)
def drawn_counts(size: int, seed: int, stream: int, resamples: int) -> Counts:
    """Return how often each of `size` images is drawn with replacement, (resamples, size); streams are independent."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, stream))))
    return generator.multinomial(size, np.full(size, 1.0 / size), size=resamples).astype(np.int32)


@lru_cache(maxsize=4)  # a table asks for the same resamples in every cell
def resampled_counts(anomalies: int, normals: int, seed: int, resamples: int) -> tuple[Counts, Counts]:
    """Return how often each image is in each of `resampled_rows`: (resamples, anomalies) and (resamples, normals)."""
    rows = list(resampled_rows(anomalies, normals, seed, resamples))
    return (
        np.array([np.bincount(one, minlength=anomalies) for one, _ in rows], dtype=np.int32),
        np.array([np.bincount(other, minlength=normals) for _, other in rows], dtype=np.int32),
    )


def pair_credits(anomalies: FloatArray, normals: FloatArray) -> FloatArray:
    """Return twice the credit of each pair, (m, n): 2 for a win, 1 for a tie, 0 where an end is infinite."""
    known = (anomalies > -np.inf)[:, None] & (normals < np.inf)
    above, level = anomalies[:, None] > normals, anomalies[:, None] == normals
    return np.where(known, 2.0 * above + level, 0.0)
