from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from certify.checks import InputError
from certify.noise import PURPOSES, add_noise, fresh_seed, gaussian_noise, noise_chunk_count, to_grid

GOLDEN_NOISE = [-0.8683784653366681, -0.7744037032438987, -0.26776556507253385]


def test_noise_is_a_function_of_its_key_alone() -> None:
    key = {"seed": 1, "image_index": 2, "purpose": "certify", "chunk": 3}
    noise = gaussian_noise(**key, shape=(50, 2))
    assert noise.dtype == np.float64
    assert np.array_equal(noise, gaussian_noise(**key, shape=(50, 2)))
    for change in ({"seed": 2}, {"image_index": 3}, {"purpose": "select"}, {"chunk": 4}):
        other = gaussian_noise(**(key | change), shape=(50, 2))
        assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.4
    assert len(set(PURPOSES.values())) == len(PURPOSES)


def test_fresh_seeds_are_keys_that_differ() -> None:
    seeds = {fresh_seed() for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    first, second = (gaussian_noise(seed, 0, "certify", 0, (50, 100)) for seed in sorted(seeds)[:2])
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_noise_is_standard_normal() -> None:
    noise = np.concatenate([gaussian_noise(0, i, "certify", 0, (50, 100)) for i in range(20)])
    assert abs(noise.mean()) < 0.015
    assert abs(noise.std() - 1.0) < 0.01
    assert abs((noise**3).mean()) < 0.04
    # Draws and pixels are uncorrelated.
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.015


def test_noise_has_not_changed() -> None:
    """Stored scores stay reproducible: these are numpy's variates for this key."""
    assert gaussian_noise(0, 0, "certify", 0, (3,)) == pytest.approx(GOLDEN_NOISE, abs=1e-15)


@pytest.mark.parametrize(("n", "chunks"), [(1, 1), (50, 1), (51, 2), (1000, 20)])
def test_chunks_hold_fifty_draws(n: int, chunks: int) -> None:
    assert noise_chunk_count(n) == chunks


@pytest.mark.parametrize("key", [(-1, 0, "certify", 0), (0, -1, "certify", 0), (0, 0, "certify", -1)])
def test_negative_keys_are_refused(key) -> None:
    with pytest.raises(InputError, match="at least 0"):
        gaussian_noise(*key, shape=(2,))


def test_noise_is_added_in_float64_and_cast_once() -> None:
    pixels, noise = np.full((1, 2, 2), 1.0 / 3.0), gaussian_noise(0, 0, "certify", 0, (50, 1, 2, 2))
    noisy = add_noise(pixels, noise.copy(), 0.25)
    assert noisy.dtype == np.float32
    assert np.array_equal(noisy, (1.0 / 3.0 + 0.25 * noise).astype(np.float32))


def levels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (1, 3, 3)).astype(np.float64)


def test_grid_noise_is_a_whole_number_of_levels_whatever_the_image() -> None:
    """Rounding must commute with the image: else it would leak the clean pixels through the last bits."""
    noise = gaussian_noise(0, 0, "certify", 0, (50, 1, 3, 3))
    steps = []
    for image in (levels(0), levels(1)):
        noisy = add_noise(to_grid(image / 255.0), noise.copy(), 0.25, grid=True)
        whole = np.rint(255.0 * noisy.astype(np.float64))
        assert np.array_equal(noisy, (whole / 255.0).astype(np.float32))
        steps.append(whole - image)
    assert np.array_equal(*steps)
    assert np.abs(steps[0] - 255.0 * 0.25 * noise).max() <= 0.5 + 1e-9


def test_grid_noise_has_the_law_of_rounded_gaussian_noise() -> None:
    sigma, image = 1.0 / 255.0, np.full((1, 1, 1), 128.0)
    noise = gaussian_noise(0, 0, "certify", 0, (20000, 1, 1, 1))
    steps = np.rint(255.0 * add_noise(to_grid(image / 255.0), noise, sigma, grid=True).ravel()) - 128.0
    for step in range(-2, 3):
        expected = norm.cdf(step + 0.5) - norm.cdf(step - 0.5)
        assert abs((steps == step).mean() - expected) < 0.015


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eight_bit_images_are_on_the_grid_however_they_were_divided(dtype) -> None:
    every = np.arange(256).reshape(1, 16, 16)
    for image in (every.astype(dtype) / dtype(255), every.astype(dtype) * dtype(1 / 255)):
        assert np.array_equal(to_grid(image.astype(np.float64)), every / 255.0)


@pytest.mark.parametrize(
    "image", [levels() / 255.0 + 1e-3, levels() / 256.0, (levels() / 255).astype(np.float16)]
)
def test_images_off_the_grid_are_refused(image) -> None:
    with pytest.raises(InputError, match=r"image 7 lies .* off the 8-bit grid"):
        to_grid(image.astype(np.float64), "image 7")
