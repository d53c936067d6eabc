from __future__ import annotations

import torch
from torch import Tensor

from diffad.atd.pairs import PairedBatches

OPEN = torch.arange(10.0)[:, None]


def batches(first: int, last: int, *, rank: int = 0, processes: int = 1) -> list[tuple[Tensor, ...]]:
    loader = [(torch.full((4, 1), float(number)),) for number in range(first, last)]
    pairs = PairedBatches(
        loader, OPEN, batch_size=4, first=first, last=last, seed=3, rank=rank, processes=processes
    )
    return list(pairs)


def test_an_epoch_of_the_open_set_shows_every_row_once() -> None:
    seen = torch.cat([outside for _, outside in batches(0, 5)]).flatten()
    assert sorted(seen[:10].tolist()) == list(range(10))
    assert sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_a_resumed_walk_goes_on_where_it_stopped() -> None:
    whole, rest = batches(0, 6), batches(2, 6)
    assert len(rest) == 4
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_processes_share_the_walk_of_one() -> None:
    alone = [outside for _, outside in batches(0, 6)]
    first, second = ([outside for _, outside in batches(0, 3, rank=rank, processes=2)] for rank in (0, 1))
    dealt = [part for pair in zip(first, second, strict=True) for part in pair]
    assert all(torch.equal(one, other) for one, other in zip(alone, dealt, strict=True))


def test_an_open_set_without_weight_is_empty() -> None:
    loader = [(torch.ones(4, 2),)] * 2
    pairs = PairedBatches(loader, None, batch_size=4, first=0, last=2, seed=0)
    assert [outside.shape for _, outside in pairs] == [(0, 2), (0, 2)]
