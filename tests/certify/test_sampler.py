from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from certify.sampler import NOISE_CHUNK, gaussian_noise, sample_scores, sampling_config
from certify.store import ScoreStore

OPTIONS = {"sigma": 0.25, "n": 120, "seed": 7, "purpose": "certify", "batch_size": 100, "probe": False}


def first_pixel(clean: Tensor, noisy: Tensor) -> Tensor:
    return noisy[:, 0, 0, 0]


class Counter:
    """A base score that records its batches and may be interrupted."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.batches: list[np.ndarray] = []
        self.stop_after = stop_after

    def __call__(self, clean: Tensor, noisy: Tensor) -> Tensor:
        if self.stop_after == len(self.batches):
            raise KeyboardInterrupt
        self.batches.append(noisy.numpy().copy())
        return noisy[:, 0, 0, 0]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))


def test_scores_see_image_plus_scaled_noise_cast_once(images: Tensor) -> None:
    scores = sample_scores(first_pixel, images, [0, 1, 2, 9], **OPTIONS)
    assert scores.shape == (4, 120)
    assert scores.dtype == np.float64
    noise = np.concatenate([gaussian_noise(7, 9, "certify", c, (NOISE_CHUNK, 1, 3, 3)) for c in range(3)])
    expected = (images[3].double().numpy() + 0.25 * noise).astype(np.float32)[:120, 0, 0, 0]
    assert np.array_equal(scores[3], expected.astype(np.float64))


def test_the_same_numbers_come_out_whatever_the_batch_the_order_or_the_company(images: Tensor) -> None:
    scores = sample_scores(first_pixel, images, range(4), **OPTIONS)
    for batch_size in (50, 150, 250):
        assert np.array_equal(
            scores, sample_scores(first_pixel, images, range(4), **(OPTIONS | {"batch_size": batch_size}))
        )
    order = [2, 0, 3, 1]
    assert np.array_equal(scores[order], sample_scores(first_pixel, images[order], order, **OPTIONS))
    assert np.array_equal(scores[2:3], sample_scores(first_pixel, images[2:3], [2], **OPTIONS))
    longer = sample_scores(first_pixel, images, range(4), **(OPTIONS | {"n": 333}))
    assert np.array_equal(scores, longer[:, :120])


def test_forward_batches_have_one_composition_whatever_n(images: Tensor) -> None:
    short, long = Counter(), Counter()
    sample_scores(short, images[:1], [5], **(OPTIONS | {"n": 1}))
    sample_scores(long, images[:1], [5], **(OPTIONS | {"n": 201}))
    assert [len(batch) for batch in long.batches] == [100, 100, 100]
    assert np.array_equal(short.batches[0], long.batches[0])


def test_global_randomness_is_neither_read_nor_changed(images: Tensor) -> None:
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state().clone()  # noqa: NPY002
    first = sample_scores(first_pixel, images, range(4), **OPTIONS)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.rand(5)
    assert np.array_equal(first, sample_scores(first_pixel, images, range(4), **OPTIONS))


def test_columns_and_nan_are_passed_on_and_no_gradient_is_kept(images: Tensor) -> None:
    weight = torch.ones((), requires_grad=True)

    def two_columns(clean: Tensor, noisy: Tensor) -> Tensor:
        assert clean.shape == (1, 1, 3, 3)
        assert not torch.is_grad_enabled()
        difference = (noisy - clean).flatten(1) * weight
        return torch.stack([difference.norm(dim=1), torch.full((len(noisy),), torch.nan)], dim=1)

    scores = sample_scores(two_columns, images, range(4), **OPTIONS)
    assert scores.shape == (4, 120, 2)
    assert np.isfinite(scores[..., 0]).all()
    assert np.isnan(scores[..., 1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 120}, "multiple of 50"),
        ({"n": 0}, "at least one draw"),
        ({"sigma": -1.0}, "sigma"),
        ({"seed": -1}, "seed"),
        ({"purpose": "training"}, "purpose"),
    ],
)
def test_bad_options_are_refused(images: Tensor, change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample_scores(first_pixel, images, range(4), **(OPTIONS | change))


@pytest.mark.parametrize("indices", [[0, 1], [0, 1, 2, -3], [0.0, 1.0, 2.0, 3.0]])
def test_bad_indices_are_refused(images: Tensor, indices) -> None:
    with pytest.raises(Exception, match="indices"):
        sample_scores(first_pixel, images, indices, **OPTIONS)


def test_a_score_of_the_wrong_shape_is_refused(images: Tensor) -> None:
    with pytest.raises(InputError, match="one score an image"):
        sample_scores(lambda clean, noisy: noisy.mean(), images, range(4), **OPTIONS)


def make_store(folder: Path, **change: object) -> ScoreStore:
    config = sampling_config(sigma=0.25, seed=7, purpose="certify", batch_size=100)
    return ScoreStore(folder, {**config, "detector": "toy", **change})


def test_an_interrupted_run_loses_only_the_batch_in_flight(images: Tensor, tmp_path: Path) -> None:
    whole = sample_scores(first_pixel, images, range(4), **OPTIONS)
    stopped = Counter(stop_after=5)
    with pytest.raises(KeyboardInterrupt):
        sample_scores(stopped, images, range(4), store=make_store(tmp_path), **OPTIONS)
    resumed = Counter()
    scores = sample_scores(resumed, images, range(4), store=make_store(tmp_path), **OPTIONS)
    assert (len(stopped.batches), len(resumed.batches)) == (5, 3)
    assert np.array_equal(scores, whole)


def test_a_larger_n_continues_and_a_smaller_one_costs_nothing(images: Tensor, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    sample_scores(Counter(), images, range(4), store=store, **OPTIONS)
    base = Counter()
    longer = sample_scores(base, images, range(4), store=store, **(OPTIONS | {"n": 250}))
    assert len(base.batches) == 4  # one more batch an image
    assert np.array_equal(longer, sample_scores(first_pixel, images, range(4), **(OPTIONS | {"n": 250})))
    shorter = sample_scores(base, images, range(4), store=store, **(OPTIONS | {"n": 60}))
    assert len(base.batches) == 4
    assert np.array_equal(shorter, longer[:, :60])


def test_a_store_of_other_draws_is_refused(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sigma is 0.5 in its configuration and 0.25"):
        sample_scores(first_pixel, images, range(4), store=make_store(tmp_path / "a", sigma=0.5), **OPTIONS)
    bare = ScoreStore(tmp_path / "b", {"detector": "toy", "sigma": 0.25, "seed": 7})
    with pytest.raises(InputError, match="purpose is 'absent'"):
        sample_scores(first_pixel, images, range(4), store=bare, **OPTIONS)
    store = make_store(tmp_path / "c")
    with pytest.raises(InputError, match="twice"):
        sample_scores(first_pixel, images, [0, 1, 2, 2], store=store, **OPTIONS)
    sample_scores(first_pixel, images, range(4), store=store, **OPTIONS)
    with pytest.raises(InputError, match="another image"):
        sample_scores(first_pixel, images.flip(0), range(4), store=store, **OPTIONS)
