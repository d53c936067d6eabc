"""DrawPool: the noisy scores of a set of images, drawn as far as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.ahead import made_ahead
from certify.checks import InputError, check_choice, check_images, check_positive
from certify.composition import Batch, Composition, check_indices
from certify.console import progress
from certify.identity import check_named
from certify.log import Scores, image_digest
from certify.noise import NOISE_CHUNK, PURPOSES, add_noise, gaussian_noise, noise_chunk_count, to_grid
from certify.probe import Images, check_uncoupled
from certify.shards import Shard
from certify.store import ScoreStore
from certify.types import FloatArray

# A score under noise: float32 `clean` (1, c, h, w) and `noisy` (b, c, h, w) to (b,) or (b, columns). With several
# images a batch, `clean` is (b, c, h, w).
NoisyScore: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def sampling_config(
    *, sigma: float, seed: int, purpose: str, batch_size: int, images_per_batch: int = 1, grid: bool = False
) -> dict[str, Any]:
    """Return the sampling options that determine the scores, for the configuration of a `ScoreStore`.

    Add what scores them, `"detector": NAME`: a store without it is refused. n is not among them: a larger n continues
    the same draws.
    """
    return {
        "sigma": float(sigma),
        "seed": int(seed),
        "purpose": purpose,
        "batch_size": int(batch_size),
        "images_per_batch": int(images_per_batch),
        "grid": bool(grid),
        "noise_chunk": NOISE_CHUNK,
        "numpy": np.__version__,
    }


class DrawPool:
    """Noisy scores of some images, extended on demand; see `sample_scores` for one fixed n.

    Args:
        base: the score of (clean, noisy); it must treat each image of a batch by itself. Called in inference mode.
        images: in [0, 1].
        indices: one index >= 0 an image, which keys its noise: the position in the data set, never in a batch.
        sigma: standard deviation of the noise, in pixel units of [0, 1].
        seed: master key, >= 0.
        purpose: one of PURPOSES.
        batch_size: images a forward pass, a multiple of images_per_batch * NOISE_CHUNK; a batch is always full, if
            need be with draws beyond those asked for, so ask for multiples of `draws_per_batch`.
        images_per_batch: images whose draws share a forward pass (`certify.composition`). More than one serves few
            draws an image on a large batch.
        device: where `base` computes.
        store: keeps what was drawn and returns what is kept; its configuration must hold `sampling_config(...)`, and
            a name under `detector` that no other score has.
        grid: integer noise for 8-bit images; see `certify.noise`.
        shard: the share of this process if several work together; they need a common store.
        label: what the progress bar says.
        name: of the detector, for errors.
        probe: check before the first draw, by four batches that count as nothing, that images of a batch do not
            influence each other. Leave it on, except where the same `base` was checked before.

    Raises:
        InputError: for arguments outside these ranges, images that are off the grid, a store of other draws, coupled
            images, or a score of the wrong shape.
    """

    def __init__(
        self,
        base: NoisyScore,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        *,
        sigma: float,
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
    ) -> None:
        self.images = check_images(images).detach()
        self.indices = check_indices(indices, len(images))
        self.sigma, self.purpose = (
            check_positive(sigma, "sigma"),
            check_choice(purpose, tuple(PURPOSES), "purpose"),
        )
        self.batch_size = batch_size
        self._composition = Composition.of(self.indices, batch_size, images_per_batch)
        self.base, self.seed, self.device, self.grid = base, seed, device, grid
        self.store, self.label, self.name = store, label, name
        self.shard = _check_shard(shard, store)
        self._asked = [0] * len(self.indices)
        self._planned: set[Batch] = set()
        self.probed = not probe
        self._scores: list[dict[int, Scores]] = [{} for _ in self.indices]
        if grid:
            for row in range(len(self.indices)):
                self._pixels(row)  # refuses before anything is drawn
        if store is not None:
            needed = sampling_config(
                sigma=sigma,
                seed=seed,
                purpose=purpose,
                batch_size=batch_size,
                images_per_batch=images_per_batch,
                grid=grid,
            )
            _check_store(store, needed, self.indices)
            self._digests = [image_digest(self._pixels(row)) for row in range(len(self.indices))]
            self._load(store)

    def extend(self, targets: Mapping[int, int]) -> None:
        """Draw what is missing so that `draws(row)` has at least targets[row] draws, for each row given.

        Rows are positions in `images`. With several processes, all must call this with the same targets; each draws
        its share, waits for the others, and reads theirs.
        """
        for row, n in targets.items():
            if not 0 <= row < len(self.indices) or n < 1:
                raise InputError(
                    f"draws: got n = {n} for row {row}, need n >= 1, row below {len(self.indices)}"
                )
        wanted = (batch for row, n in targets.items() for batch in self._composition.batches(row, n))
        # fixed by what was asked, not by what is kept: every process sees the same list
        new = [batch for batch in dict.fromkeys(wanted) if batch not in self._planned]
        own = [batch for place, batch in enumerate(new) if self.shard is None or self.shard.owns(place)]
        self._draw([batch for batch in own if self._lacks(batch)])
        if self.shard is not None:
            self._gather(self.shard, new)
        self._planned.update(new)
        for row, n in targets.items():
            self._asked[row] = max(self._asked[row], n)

    def draws(self, row: int) -> FloatArray:
        """Return the draws asked for so far, (n,) or (n, columns), in draw order; NaN is passed on.

        Exactly as many as the largest n of `extend` for this row, whatever a store holds beyond, so that a resumed run
        sees what the first one saw.
        """
        n = self._asked[row]
        if n == 0:
            raise InputError(f"draws: nothing was asked for row {row}; call extend first")
        chunks = [self._scores[row][chunk] for chunk in range(noise_chunk_count(n))]
        return np.concatenate(chunks)[:n].astype(np.float64)

    def all_draws(self, n: int) -> FloatArray:
        """Extend every row to `n` draws and return the first n of each, (images, n) or (images, n, columns)."""
        if n < 1:
            raise InputError(f"n: got {n}, need at least one draw")
        rows = range(len(self.indices))
        self.extend(dict.fromkeys(rows, n))
        first = self.draws(0)[:n]
        # filled row by row: a list of rows beside the array would double the memory
        scores = np.empty((len(rows), *first.shape), first.dtype)
        for row in rows:
            scores[row] = self.draws(row)[:n]
        return scores

    @property
    def draws_per_batch(self) -> int:
        """Draws that an image has in a forward batch; asking for multiples of it wastes none."""
        return self._composition.draws_per_batch

    def redraw(self, row: int, chunk: int) -> Scores:
        """Score one noise chunk of a row once more, in the batch that it was or would be drawn in; nothing is kept.

        On one kind of processor the scores are those that `extend` draws, to the bit: how a third party checks a store.
        """
        drawn = self._composition.batches(row, (chunk + 1) * NOISE_CHUNK)
        batch = next(batch for batch in drawn if chunk in batch.chunks)
        start = batch.rows.index(row) * self.draws_per_batch + batch.chunks.index(chunk) * NOISE_CHUNK
        return self._score(*self._noisy(batch))[start : start + NOISE_CHUNK]

    @property
    def passes(self) -> int:
        """Forward passes (images scored) that the draws asked for cost, by all processes and earlier runs together."""
        return len(self._planned) * self.batch_size

    def _lacks(self, batch: Batch) -> bool:
        return any(chunk not in self._scores[row] for row in batch.rows for chunk in batch.chunks)

    def _gather(self, shard: Shard, batches: Iterable[Batch]) -> None:
        """Wait for the other processes and read what they drew."""
        assert self.store is not None  # see _check_shard
        shard.barrier()
        self.store.refresh()
        self._load(self.store)
        if any(self._lacks(batch) for batch in batches):
            raise InputError(
                f"{self.store.folder}: lacks draws of another process; all must see the same folder"
            )

    def _draw(self, missing: list[Batch]) -> None:
        if not missing:
            return
        with closing(made_ahead(self._noisy, missing)) as prepared:
            quiet = self.shard is not None and self.shard.rank > 0
            bar = missing if quiet else progress(missing, self.label)
            for batch, (clean, noisy) in zip(bar, prepared, strict=True):
                if not self.probed:
                    check_uncoupled(self._score, clean, noisy, self.name)
                    self.probed = True
                self._keep(batch, self._score(clean, noisy))

    def _keep(self, batch: Batch, scores: Scores) -> None:
        for place, row in enumerate(batch.rows):
            if row in batch.rows[:place]:
                continue  # a repetition that fills the batch
            own = scores[place * self.draws_per_batch : (place + 1) * self.draws_per_batch].reshape(
                len(batch.chunks), NOISE_CHUNK, *scores.shape[1:]
            )
            chunks = dict(zip(batch.chunks, own, strict=True))
            if self.store is not None:
                self.store.put(self.indices[row], self._digests[row], chunks)
            for chunk, drawn in chunks.items():
                self._scores[row].setdefault(chunk, drawn)

    def _load(self, store: ScoreStore) -> None:
        self._scores = [
            store.chunks(index, digest) for index, digest in zip(self.indices, self._digests, strict=True)
        ]

    def _pixels(self, row: int) -> FloatArray:
        pixels = self.images[row].to("cpu", torch.float64).numpy()
        return to_grid(pixels, f"image {self.indices[row]}") if self.grid else pixels

    def _noisy(self, batch: Batch) -> tuple[Images, Images]:
        """Return the clean images, (1, c, h, w) or (batch_size, c, h, w), and the noisy ones of a batch."""
        shape = (NOISE_CHUNK, *self.images.shape[1:])
        noisy = np.empty((self.batch_size, *self.images.shape[1:]), np.float32)
        clean = np.empty((len(batch.rows), *self.images.shape[1:]), np.float32)
        start = 0
        for place, row in enumerate(batch.rows):
            pixels = self._pixels(row)
            clean[place] = pixels
            for chunk in batch.chunks:
                noise = gaussian_noise(self.seed, self.indices[row], self.purpose, chunk, shape)
                noisy[start : start + NOISE_CHUNK] = add_noise(pixels, noise, self.sigma, self.grid)
                start += NOISE_CHUNK
        return (clean if len(clean) == 1 else clean.repeat(self.draws_per_batch, axis=0)), noisy

    def _score(self, clean: Images, noisy: Images) -> Scores:
        """Return the scores of a batch in float32, or in float64 if that is what `base` returns."""
        with torch.inference_mode():
            scores = self.base(
                torch.from_numpy(clean).to(self.device), torch.from_numpy(noisy).to(self.device)
            )
        if not isinstance(scores, Tensor) or scores.ndim not in (1, 2) or len(scores) != len(noisy):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise InputError(
                f"score: got {got} for {len(noisy)} images, need a tensor ({len(noisy)},), one score an image"
            )
        exact = scores if scores.dtype == torch.float64 else scores.to(torch.float32)
        return np.array(exact.cpu().numpy())  # not a view that keeps the batch of images alive


def _check_shard(shard: Shard | None, store: ScoreStore | None) -> Shard | None:
    if shard is None or shard.world == 1:
        return None
    if store is None:
        raise InputError(f"shard: {shard.world} processes share their draws through a store; give one")
    return shard


def _check_store(store: ScoreStore, needed: dict[str, Any], indices: list[int]) -> None:
    check_named(store)
    for name, value in needed.items():
        if store.config.get(name, "absent") != value:
            raise InputError(
                f"store {store.folder}: {name} is {store.config.get(name, 'absent')!r} in its configuration "
                f"and {value!r} for these draws"
            )
    if len(set(indices)) < len(indices):
        raise InputError("indices: got an index twice; a store keeps one image an index")
