from __future__ import annotations

import threading
import time

import pytest
import torch
from torch import Tensor

from diffad.cobra.ahead import CraftedBatches
from diffad.cobra.crafting import STRATEGIES, Crafted, PseudoAnomalies, craft_seeds
from diffad.cobra.filter import NormalityFilter
from diffad.training.batches import batch_loader


def loader(images: Tensor, first: int = 0, last: int = 5):
    return batch_loader((images,), 8, first=first, last=last, seed=3, workers=0, pin=False)


@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_batches_are_those_crafted_on_the_spot_whatever_the_timing(
    normality: NormalityFilter, eights: Tensor, pause: float
):
    pseudo = PseudoAnomalies(STRATEGIES["paper"], normality)
    found = []
    for batch in CraftedBatches(loader(eights), pseudo, pool=eights, seed=3):
        time.sleep(pause)
        found.append(batch)
    assert len(found) == 5
    for number, ((images,), made) in enumerate(zip(loader(eights), found, strict=True)):
        seeds = craft_seeds(3, range(8 * number, 8 * number + 8))
        wanted = pseudo.craft(images, seeds=seeds, pool=eights)
        assert torch.equal(made[0], images)
        assert torch.equal(made[1], wanted.images)
        assert torch.equal(made[2], wanted.p_values)
        assert torch.equal(made[3], wanted.tries)
        assert torch.equal(made[4], wanted.accepted)


def test_a_resumed_walk_crafts_what_the_unbroken_one_would(eights: Tensor):
    pseudo = PseudoAnomalies(STRATEGIES["no_filter"])
    whole = list(CraftedBatches(loader(eights), pseudo, pool=eights, seed=3))
    rest = list(CraftedBatches(loader(eights, first=3), pseudo, pool=eights, seed=3, first=3))
    assert [torch.equal(a[1], b[1]) for a, b in zip(whole[3:], rest, strict=True)] == [True, True]
    assert not torch.equal(whole[0][1], rest[0][1])


def test_processes_share_the_walk_of_one(eights: Tensor):
    pseudo = PseudoAnomalies(STRATEGIES["no_filter"])
    alone = [batch[1] for batch in CraftedBatches(loader(eights, last=4), pseudo, pool=eights, seed=3)]
    batches = list(loader(eights, last=4))
    for rank in (0, 1):
        mine = CraftedBatches(batches[rank::2], pseudo, pool=eights, seed=3, rank=rank, processes=2)
        assert all(torch.equal(a[1], b) for a, b in zip(mine, alone[rank::2], strict=True))


def test_the_next_batch_is_crafted_while_this_one_is_used(eights: Tensor, monkeypatch: pytest.MonkeyPatch):
    where, made = [], threading.Semaphore(0)
    real = PseudoAnomalies.craft

    def watched(self: PseudoAnomalies, *arguments: Tensor, **options: object) -> Crafted:
        where.append(threading.current_thread())
        made.release()
        return real(self, *arguments, **options)

    monkeypatch.setattr(PseudoAnomalies, "craft", watched)
    pseudo = PseudoAnomalies(STRATEGIES["no_filter"])
    batches = iter(CraftedBatches(loader(eights), pseudo, pool=eights, seed=3))
    next(batches)
    assert made.acquire(timeout=10)
    assert made.acquire(timeout=10)  # the second one, unasked
    assert threading.current_thread() not in where
    batches.close()
    assert not any(thread.is_alive() for thread in where)


def test_what_goes_wrong_in_the_thread_is_raised_here(eights: Tensor):
    pseudo = PseudoAnomalies(STRATEGIES["no_filter"])
    with pytest.raises(ValueError, match="pool: got None"):
        list(CraftedBatches(loader(eights), pseudo, pool=None, seed=3))
