"""Batches of in-distribution images, each with a batch of the open set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from diffad.training.batches import BatchOrder, key

_OPEN = 20  # a purpose, the first number of a key: those of diffad.training are 0 to 3


class PairedBatches:
    """The batches of a loader, each followed by as many rows of the open set.

    Which rows depends on the number of the batch alone, so a resumed training sees what the unbroken one would have.

    Args:
        loader: yields tuples of tensors, in-distribution rows first.
        open_rows: images or features of the open set (m, ...), where batches are to lie; None adds empty batches.
        batch_size: rows a batch.
        first: batches that this process has been through before.
        last: batches of this process in all.
        seed: of the training.
        rank: number of this process, of `processes` in all.
    """

    def __init__(
        self,
        loader: Iterable[tuple[Tensor, ...]],
        open_rows: Tensor | None,
        *,
        batch_size: int,
        first: int,
        last: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.loader, self.open_rows = loader, open_rows
        self.rank, self.processes = rank, processes
        self.order = BatchOrder(
            1 if open_rows is None else len(open_rows),
            batch_size,
            first=first * processes,
            last=last * processes,
            seed=key(seed, _OPEN),
        )

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield (in-distribution rows, open-set rows)."""
        mine = islice(self.order, self.rank, None, self.processes)
        for (inside, *_), rows in zip(self.loader, mine, strict=True):
            if self.open_rows is None:
                yield inside, inside[:0]
            else:
                yield inside, self.open_rows[torch.tensor(rows, device=self.open_rows.device)]
