"""The batches of a whole training, in an order that the seed alone decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

ORDER, DRAWS, WEIGHTS, IMAGES = 0, 1, 2, 3  # purposes, the first number of a key


def key(seed: int, *path: int) -> int:
    """Return 63 bits that depend on `seed` and on every number of `path` (numpy SeedSequence)."""
    words = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


class Rows(Dataset[tuple[Tensor, ...]]):
    """Tensors with a common first axis, read a whole batch at a time: no Python call for each item."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Return the rows `indices` of every tensor; PyTorch's loader calls this instead of `__getitem__`."""
        rows = torch.tensor(indices)
        return tuple(tensor[rows] for tensor in self.tensors)


class BatchOrder(Sampler[list[int]]):
    """Batches `first` to `last` of an endless walk through shuffled epochs, as lists of row numbers.

    The order of epoch e depends on (seed, e) alone, so a walk can begin at any batch. Batches run over the
    end of an epoch: all have `batch_size` rows, even when there are fewer rows than that.
    """

    drop_last = False  # read by accelerate, as is batch_size

    def __init__(self, rows: int, batch_size: int, *, first: int, last: int, seed: int) -> None:
        self.rows, self.batch_size, self.first, self.last, self.seed = rows, batch_size, first, last, seed

    def __len__(self) -> int:
        return self.last - self.first

    def __iter__(self) -> Iterator[list[int]]:
        epoch, inside = divmod(self.first * self.batch_size, self.rows)
        left = self._epoch(epoch)[inside:]
        for _ in range(len(self)):
            while len(left) < self.batch_size:
                epoch += 1
                left = left + self._epoch(epoch)
            yield left[: self.batch_size]
            left = left[self.batch_size :]

    def _epoch(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(key(self.seed, ORDER, epoch))
        order: list[int] = torch.randperm(self.rows, generator=generator).tolist()
        return order


def batch_loader(
    tensors: tuple[Tensor, ...], batch_size: int, *, first: int, last: int, seed: int, workers: int, pin: bool
) -> DataLoader[tuple[Tensor, ...]]:
    """Return a loader of the batches `first` to `last` (counted over all processes) of a training."""
    return DataLoader(
        Rows(*tensors),
        batch_sampler=BatchOrder(len(tensors[0]), batch_size, first=first, last=last, seed=seed),
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pin,
        generator=torch.Generator().manual_seed(seed),  # else the loader draws from the global one
    )


def _as_it_is(batch: Any) -> Any:
    return batch
