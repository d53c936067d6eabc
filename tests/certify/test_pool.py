from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import certify.pool
from certify.checks import InputError
from certify.noise import NOISE_CHUNK, gaussian_noise
from certify.pool import DrawPool, sampling_config
from certify.sampler import sample_scores
from certify.shards import Shard
from certify.store import ScoreStore

OPTIONS = {"sigma": 0.25, "seed": 7, "purpose": "certify", "batch_size": 100}
QUIET = OPTIONS | {"probe": False}


class Recorder:
    """A base score, the distance to the clean image and one pixel, that keeps what it was given."""

    def __init__(self, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.clean: list[Tensor] = []
        self.noisy: list[Tensor] = []
        self.fail_at, self.error = fail_at, error

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        if self.fail_at == len(self.noisy) and self.error is not None:
            raise self.error
        assert torch.is_inference_mode_enabled()
        self.clean.append(clean.clone())
        self.noisy.append(noisy.clone())
        return (noisy - clean.expand_as(noisy)).flatten(1).norm(dim=1) + noisy[:, 0, 0, 0]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(0))


def make_store(folder: Path, **change: object) -> ScoreStore:
    return ScoreStore(folder, {**sampling_config(**(OPTIONS | change)), "detector": "recorder"})


def test_draws_come_as_far_as_they_are_asked_for(images: Tensor) -> None:
    whole = sample_scores(Recorder(), images, range(5), n=300, **OPTIONS)
    base = Recorder()
    pool = DrawPool(base, images, range(5), **QUIET)
    assert (pool.passes, pool.draws_per_batch) == (0, 100)
    pool.extend({0: 100, 3: 30})
    assert np.array_equal(pool.draws(0), whole[0, :100])
    assert np.array_equal(pool.draws(3), whole[3, :30])
    assert (len(base.noisy), pool.passes) == (2, 200)
    pool.extend({3: 100})  # within the batch that was drawn
    assert (len(base.noisy), pool.passes) == (2, 200)
    pool.extend({3: 250, 0: 50})
    assert (len(base.noisy), pool.passes) == (4, 400)
    assert np.array_equal(pool.draws(3), whole[3, :250])
    assert len(pool.draws(0)) == 100
    assert np.array_equal(pool.all_draws(300), whole)
    assert np.array_equal(pool.all_draws(40), whole[:, :40])
    assert pool.passes == 5 * 300


@pytest.mark.parametrize("targets", [{5: 10}, {-1: 10}, {0: 0}])
def test_targets_out_of_range_are_refused(images: Tensor, targets: dict[int, int]) -> None:
    pool = DrawPool(Recorder(), images, range(5), **QUIET)
    with pytest.raises(InputError, match="need n >= 1, row below 5"):
        pool.extend(targets)
    with pytest.raises(InputError, match="nothing was asked for row 0"):
        pool.draws(0)


def test_a_store_changes_neither_the_draws_nor_what_they_cost(images: Tensor, tmp_path: Path) -> None:
    fresh = DrawPool(Recorder(), images, range(5), **QUIET)
    fresh.extend({0: 120, 1: 50})
    sample_scores(Recorder(), images, range(5), n=300, store=make_store(tmp_path), **OPTIONS)
    base = Recorder()
    again = DrawPool(base, images, range(5), store=make_store(tmp_path), **QUIET)
    again.extend({0: 120, 1: 50})
    assert base.noisy == []
    assert again.passes == fresh.passes
    for row in (0, 1):
        assert np.array_equal(again.draws(row), fresh.draws(row))


def test_a_mixed_batch_holds_consecutive_images_and_scores_them_as_alone(images: Tensor) -> None:
    indices = [4, 5, 6, 7, 9]
    alone = sample_scores(Recorder(), images, indices, n=120, **OPTIONS)
    base = Recorder()
    mixed = sample_scores(base, images, indices, n=120, images_per_batch=2, **QUIET)
    assert np.array_equal(mixed, alone)
    assert len(base.noisy) == 3 * 3  # pairs (4, 5), (6, 7) and 9 with itself, 50 draws each a batch
    assert base.clean[0].shape == (100, 1, 3, 3)
    assert torch.equal(base.clean[0], images[:2].repeat_interleave(50, dim=0))
    assert torch.equal(base.clean[-1], images[4:].expand(100, -1, -1, -1))


def test_the_composition_of_a_batch_is_fixed_whatever_is_asked_in_which_order(images: Tensor) -> None:
    def batches(order: list[int], asks: list[dict[int, int]]) -> set[bytes]:
        base = Recorder()
        pool = DrawPool(base, images[order], order, images_per_batch=2, **QUIET)
        for targets in asks:
            pool.extend(targets)
        return {noisy.numpy().tobytes() for noisy in base.noisy}

    whole = batches([0, 1, 2, 3, 4], [dict.fromkeys(range(5), 100)])
    assert len(whole) == 6
    assert whole == batches([3, 1, 4, 0, 2], [dict.fromkeys(range(5), 100)])
    assert batches([2, 3, 1, 0], [{1: 20}, {3: 60}, {2: 100}]) < whole


def test_scores_of_a_mixed_batch_that_were_not_asked_for_are_kept(images: Tensor, tmp_path: Path) -> None:
    base = Recorder()
    pool = DrawPool(
        base, images, range(5), images_per_batch=2, store=make_store(tmp_path, images_per_batch=2), **QUIET
    )
    pool.extend({0: 50})
    pool.extend({1: 50})
    assert len(base.noisy) == 1
    pool.extend({1: 100})
    pool.extend({0: 100, 4: 10})
    assert len(base.noisy) == 3
    log = next(tmp_path.glob("*.bin")).stat().st_size
    assert log == 32 + 224 * (2 + 2 + 1)  # the repetition of image 4 is not kept twice


@pytest.mark.parametrize("images_per_batch", [1, 2])
def test_a_chunk_is_scored_again_as_it_was_drawn(images: Tensor, images_per_batch: int) -> None:
    base = Recorder()
    pool = DrawPool(base, images, range(5), images_per_batch=images_per_batch, **QUIET)
    draws = pool.all_draws(250)
    count = len(base.noisy)
    for row, chunk in ((0, 0), (3, 1), (4, 4), (1, 3)):
        assert np.array_equal(pool.redraw(row, chunk), draws[row, 50 * chunk : 50 * chunk + 50])
        batch = base.noisy.pop()
        assert any(torch.equal(batch, drawn) for drawn in base.noisy)
    assert len(base.noisy) == count
    assert pool.passes == count * 100  # a check costs, but is no draw


def conv_score(dtype: torch.dtype) -> Callable[[Tensor, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(72, 1))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    network.to(dtype)
    return lambda clean, noisy: network(noisy.to(dtype))[:, 0]


def test_scores_agree_over_batch_sizes_to_the_arithmetic_of_the_model(images: Tensor) -> None:
    base = conv_score(torch.float32)
    scores = [
        sample_scores(base, images, range(5), n=300, **(OPTIONS | {"batch_size": size}), images_per_batch=m)
        for size, m in ((50, 1), (150, 1), (300, 1), (200, 4))
    ]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], rtol=1e-5, atol=1e-5 * np.abs(scores[0]).max())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_scores_keep_their_precision_with_a_store_and_without(
    images: Tensor, tmp_path: Path, dtype: torch.dtype
) -> None:
    base = conv_score(dtype)
    scores = sample_scores(base, images, range(5), n=100, **OPTIONS)
    assert scores.dtype == np.float64
    assert torch.equal(torch.from_numpy(scores).to(dtype).double(), torch.from_numpy(scores))
    single = bool((scores == scores.astype(np.float32)).all())
    assert single == (dtype != torch.float64)
    kept = sample_scores(base, images, range(5), n=100, store=make_store(tmp_path), **OPTIONS)
    again = sample_scores(base, images, range(5), n=100, store=make_store(tmp_path), **OPTIONS)
    assert np.array_equal(kept, scores)
    assert np.array_equal(again, scores)


def test_a_score_that_views_its_batch_does_not_keep_it_alive(images: Tensor) -> None:
    pool = DrawPool(lambda clean, noisy: noisy[:, 0, 0, 0], images, range(5), **QUIET)
    pool.extend({0: 100})
    assert all(chunk.base.nbytes == 100 * 4 for chunk in pool._scores[0].values())


def test_grid_noise_reaches_the_score_on_the_grid(images: Tensor, tmp_path: Path) -> None:
    eight_bit = (255 * images).round() / 255
    base = Recorder()
    store = make_store(tmp_path, grid=True)
    scores = sample_scores(base, eight_bit, range(5), n=100, grid=True, store=store, **QUIET)
    levels = np.rint(255 * base.noisy[1].numpy().astype(np.float64))
    assert np.array_equal(base.noisy[1], (levels / 255).astype(np.float32))
    noise = np.concatenate([gaussian_noise(7, 1, "certify", c, (NOISE_CHUNK, 1, 3, 3)) for c in range(2)])
    image = np.rint(255 * eight_bit[1].numpy())
    assert np.abs(levels - image - 255 * 0.25 * noise).max() <= 0.5 + 1e-9
    plain = sample_scores(Recorder(), eight_bit, range(5), n=100, **QUIET)
    assert 0 < np.abs(scores - plain).max() < 0.05
    with pytest.raises(InputError, match="grid is True in its configuration and False"):
        sample_scores(Recorder(), eight_bit, range(5), n=100, store=store, **QUIET)
    with pytest.raises(InputError, match="image 3 lies"):
        DrawPool(Recorder(), images[3:], [3, 4], grid=True, **QUIET)


def test_coupled_images_are_refused_before_anything_is_drawn(images: Tensor, tmp_path: Path) -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(9, 1))
    store = make_store(tmp_path)

    def base(clean: Tensor, noisy: Tensor) -> Tensor:
        return network(noisy)[:, 0]

    with pytest.raises(InputError, match="Normed: scores of one image depend on the other images"):
        sample_scores(base, images, range(5), n=100, store=store, name="Normed", **OPTIONS)
    assert list(tmp_path.glob("*.bin")) == []
    network.eval()
    sample_scores(base, images, range(5), n=100, store=store, name="Normed", **OPTIONS)


def test_the_probe_costs_four_batches_once_and_counts_as_nothing(images: Tensor, tmp_path: Path) -> None:
    base = Recorder()
    pool = DrawPool(base, images, range(5), store=make_store(tmp_path), **OPTIONS)
    assert not pool.probed
    pool.extend({0: 100})
    assert pool.probed
    assert (len(base.noisy), pool.passes, len(pool.draws(0))) == (5, 100, 100)
    assert torch.equal(base.noisy[0], base.noisy[4])
    pool.extend({0: 100, 1: 100})
    assert len(base.noisy) == 6
    kept = Recorder()
    DrawPool(kept, images, range(5), store=make_store(tmp_path), **OPTIONS).extend({0: 100, 1: 100})
    assert kept.noisy == []  # nothing to draw, nothing to ask


def ahead_threads() -> int:
    return sum(thread.name.startswith("ahead") for thread in threading.enumerate())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_error_of_the_score_ends_the_noise_thread_and_keeps_what_was_drawn(
    images: Tensor, error: BaseException
) -> None:
    pool = DrawPool(Recorder(2, error), images, range(5), **QUIET)
    with pytest.raises(type(error)):
        pool.extend(dict.fromkeys(range(5), 100))
    assert ahead_threads() == 0
    assert pool.passes == 0
    again = Recorder()
    pool.base = again
    whole = sample_scores(Recorder(), images, range(5), n=100, **OPTIONS)
    assert np.array_equal(pool.all_draws(100), whole)
    assert len(again.noisy) == 3  # two batches were kept


def test_an_error_in_the_making_of_noise_is_raised(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(certify.pool, "gaussian_noise", broken)
    with pytest.raises(MemoryError):
        DrawPool(Recorder(), images, range(5), **QUIET).extend({0: 100})
    assert ahead_threads() == 0


def draw_together(
    folders: list[Path], images: Tensor, asks: list[dict[int, int]]
) -> tuple[list[DrawPool], list[Recorder], list[BaseException]]:
    """Run one pool a thread, as so many processes would; return pools, scores and errors."""
    world = len(folders)
    barrier = threading.Barrier(world, timeout=60)
    bases, errors = [Recorder() for _ in folders], []
    pools = [
        DrawPool(base, images, range(5), store=make_store(folder), shard=shard, **QUIET)
        for base, folder, shard in zip(
            bases,
            folders,
            [Shard(rank, world, lambda: barrier.wait() and None) for rank in range(world)],
            strict=True,
        )
    ]

    def work(pool: DrawPool) -> None:
        try:
            for targets in asks:
                pool.extend(targets)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(pool,)) for pool in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return pools, bases, errors


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_the_work_and_all_end_with_all_draws(
    images: Tensor, tmp_path: Path, world: int
) -> None:
    asks = [dict.fromkeys(range(5), 100), {2: 300}, dict.fromkeys(range(5), 400)]
    whole = sample_scores(Recorder(), images, range(5), n=400, **OPTIONS)
    pools, bases, errors = draw_together([tmp_path] * world, images, asks)
    assert errors == []
    for pool in pools:
        assert pool.passes == 5 * 400
        for row in range(5):
            assert np.array_equal(pool.draws(row), whole[row])
    shares = [len(base.noisy) for base in bases]
    assert sum(shares) == 20
    assert max(shares) - min(shares) <= 3  # one an extension
    assert len(list(tmp_path.glob("*.bin"))) == world


def test_processes_that_do_not_share_a_folder_are_refused(images: Tensor, tmp_path: Path) -> None:
    _, _, errors = draw_together([tmp_path / "a", tmp_path / "b"], images, [{0: 300}])
    assert len(errors) == 2
    assert all("all must see the same folder" in str(error) for error in errors)


def test_processes_without_a_store_are_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match="2 processes share their draws through a store"):
        DrawPool(Recorder(), images, range(5), shard=Shard(0, 2, lambda: None), **QUIET)
    DrawPool(Recorder(), images, range(5), shard=Shard(0, 1, lambda: None), **QUIET)
