from collections import Counter
from itertools import chain

import pytest
import torch

from diffad.training.batches import BatchOrder, batch_loader, key


@pytest.mark.parametrize(("rows", "batch_size"), [(10, 3), (10, 5), (4, 7), (1, 2)])
def test_a_walk_can_begin_anywhere(rows: int, batch_size: int) -> None:
    whole = list(BatchOrder(rows, batch_size, first=0, last=12, seed=1))
    for first in (1, 5, 12):
        assert list(BatchOrder(rows, batch_size, first=first, last=12, seed=1)) == whole[first:]


def test_every_epoch_holds_every_row_once_in_an_order_of_its_own() -> None:
    walk = list(chain.from_iterable(BatchOrder(6, 4, first=0, last=9, seed=2)))
    epochs = [walk[i : i + 6] for i in range(0, 36, 6)]
    assert all(Counter(epoch) == Counter(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_seed_changes_the_order() -> None:
    assert list(BatchOrder(50, 50, first=0, last=1, seed=0)) != list(
        BatchOrder(50, 50, first=0, last=1, seed=1)
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_gives_rows_of_every_tensor_and_leaves_the_global_generator(workers: int) -> None:
    images, labels = torch.arange(10.0)[:, None], torch.arange(10)
    before = torch.random.get_rng_state()
    loader = batch_loader((images, labels), 4, first=0, last=3, seed=0, workers=workers, pin=False)
    batches = list(loader)
    assert [tuple(part.shape) for part in batches[0]] == [(4, 1), (4,)]
    assert all(torch.equal(first[:, 0].long(), second) for first, second in batches)
    assert len(batches) == 3
    assert torch.equal(before, torch.random.get_rng_state())


def test_key_depends_on_every_number() -> None:
    keys = {key(0), key(1), key(0, 0), key(0, 1), key(0, 0, 0), key(0, 0, 1), key(0, 1, 0)}
    assert len(keys) == 7
    assert all(0 <= one < 2**63 for one in keys)
