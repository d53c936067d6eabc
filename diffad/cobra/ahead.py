"""Batches whose pseudo-anomalies are crafted while the step before runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing

import torch
from torch import Tensor

from certify.ahead import made_ahead
from diffad.cobra.crafting import Crafted, PseudoAnomalies, craft_seeds


class CraftedBatches:
    """The batches of a loader, each with pseudo-anomalies of its images, made by a second thread.

    What a batch holds depends on its number alone, never on the timing: seeds are keyed by (seed, place in the whole
    walk of the training), so a resumed training crafts what the unbroken one would have.

    Args:
        loader: yields tuples of tensors, images in [0, 1] first.
        pseudo: crafts.
        pool: normals that mixup and cutmix take another image from.
        seed: of the training.
        first: batches that this process has been through before.
        rank: number of this process, of `processes` in all.
    """

    def __init__(
        self,
        loader: Iterable[tuple[Tensor, ...]],
        pseudo: PseudoAnomalies,
        *,
        pool: Tensor | None,
        seed: int,
        first: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.loader, self.pseudo, self.pool, self.seed = loader, pseudo, pool, seed
        self.first, self.rank, self.processes = first, rank, processes

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield (*batch, pseudo-anomalies, p-values, tries, accepted), as in `Crafted`."""
        items = ((number, batch, _mark(batch)) for number, batch in enumerate(self.loader, self.first))
        with closing(made_ahead(self._make, items)) as batches:
            for batch, crafted in batches:
                made = (crafted.images, crafted.p_values, crafted.tries, crafted.accepted)
                for tensor in made:
                    if tensor.is_cuda:  # made on another stream: the memory is busy until this one is through
                        tensor.record_stream(torch.cuda.current_stream(tensor.device))
                yield (*batch, *made)

    def _make(
        self, item: tuple[int, tuple[Tensor, ...], torch.cuda.Event | None]
    ) -> tuple[tuple[Tensor, ...], Crafted]:
        number, batch, ready = item
        images = batch[0]
        place = (number * self.processes + self.rank) * len(images)
        seeds = craft_seeds(self.seed, range(place, place + len(images)))
        if ready is None:
            return batch, self.pseudo.craft(images, seeds=seeds, pool=self.pool)
        # on the training's own stream it would wait for the steps in front of it
        stream = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(stream):
            stream.wait_event(ready)
            crafted = self.pseudo.craft(images, seeds=seeds, pool=self.pool)
        stream.synchronize()
        return batch, crafted


def _mark(batch: tuple[Tensor, ...]) -> torch.cuda.Event | None:
    """Return what tells another stream that the batch has arrived on its GPU; None on a CPU."""
    if not batch[0].is_cuda:
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(batch[0].device))
    return event
