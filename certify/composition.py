"""Which draws share a forward batch, and where they stand in it.

Float32 results depend on the shape of a batch and on the place in it, so both are fixed: a function of image index,
chunk number, batch size and images a batch. Not of n, of the order of the images, of how many processes share the
work, or of a resume in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from certify.checks import InputError
from certify.noise import NOISE_CHUNK


@dataclass(frozen=True)
class Batch:
    """One forward pass: noise chunks `chunks` of each of `rows`, row after row."""

    rows: tuple[int, ...]
    """Positions in the list of images; one is repeated where the batch has no image of its own for a place."""
    chunks: range


@dataclass(frozen=True)
class Composition:
    """The batches of some images.

    A batch holds consecutive chunks of the images of one group, those with equal index // images_per_batch.
    """

    groups: tuple[tuple[int, ...], ...]
    """For each row the rows of its group, in the order of their indices."""
    draws_per_batch: int
    """Draws that each image has in a batch."""

    @classmethod
    def of(cls, indices: Sequence[int], batch_size: int, images_per_batch: int = 1) -> Composition:
        """Plan the batches of images with these indices (each once, if images_per_batch > 1).

        Raises:
            InputError: if the batch size is not a multiple of images_per_batch * NOISE_CHUNK.
        """
        if images_per_batch < 1:
            raise InputError(f"images_per_batch: got {images_per_batch}, need at least 1")
        least = images_per_batch * NOISE_CHUNK
        if batch_size < 1 or batch_size % least:
            words = f" for each of {images_per_batch} images" if images_per_batch > 1 else ""
            raise InputError(
                f"batch_size: got {batch_size}, need a multiple of {least}, the size of a noise chunk{words}"
            )
        return cls(_groups(indices, images_per_batch), batch_size // images_per_batch)

    def batches(self, row: int, n: int) -> Iterator[Batch]:
        """Yield the batches that hold the first `n` draws of a row, in order."""
        size = self.draws_per_batch // NOISE_CHUNK
        for block in range(math.ceil(n / self.draws_per_batch)):
            yield Batch(self.groups[row], range(block * size, (block + 1) * size))


def check_indices(indices: Sequence[int], count: int) -> list[int]:
    """Return image indices as a list of ints >= 0, one an image."""
    array = np.asarray(indices)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer) or (array < 0).any():
        raise InputError(
            f"indices: got {array.dtype} of shape {array.shape}, need {count} integers of at least 0"
        )
    return [int(index) for index in array]


def _groups(indices: Sequence[int], images_per_batch: int) -> tuple[tuple[int, ...], ...]:
    """Where an index is missing, the first image of its group that is there fills the place."""
    if images_per_batch == 1:
        return tuple((row,) for row in range(len(indices)))
    if len(set(indices)) < len(indices):
        raise InputError("indices: got an index twice; several images a batch need each index once")
    rows = {index: row for row, index in enumerate(indices)}
    groups = []
    for index in indices:
        first = index - index % images_per_batch
        members = [rows.get(first + place) for place in range(images_per_batch)]
        filler = next(row for row in members if row is not None)
        groups.append(tuple(filler if row is None else row for row in members))
    return tuple(groups)
