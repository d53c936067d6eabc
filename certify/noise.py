"""Keyed Gaussian noise: which numbers are added to an image, and how.

The noise of an image is a function of (seed, purpose, image index, chunk) alone, so the same numbers come out
whatever the batch size, the order of the images, the number of processes, or a resume in between.

Two modes:

- float: noise drawn and added in float64, the sum cast to float32 once. Idealised: the certificate's theorem is about
  real numbers, and the last bits of a float sum tell something of the clean image.
- grid: for 8-bit images, after Voráček & Hein (ICLR 2023). x = k / 255 with whole k, and the score sees
  (k + round(255 sigma z)) / 255. Rounding commutes with adding a whole number, so this is a function of the exact
  x + sigma z and the theorem applies, to attackers who also submit 8-bit images. What remains is the sampler's own
  error: z is numpy's float64 normal, not a real one, which moves the law of a draw by the order of d * 1e-13 in total
  variation (d pixels). It is not subtracted.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from certify.checks import InputError, check_choice
from certify.types import FloatArray

# Draws for different purposes are independent: what certifies a guess, a threshold or a fit must not have made it.
PURPOSES = {"select": 0, "certify": 1, "calibrate": 2, "predict": 3, "evaluate": 4, "attack": 5, "fit": 6}
NOISE_CHUNK = 50

GRID_LEVELS = 255
# An 8-bit level divided by 255 in float32 is off by 2e-5 of a level at most; float16 by 6e-2.
GRID_TOLERANCE = 1e-4


def fresh_seed() -> int:
    """Return a master key from the operating system's entropy, 63 bits: no image was made with it in mind.

    Draw it after the images are fixed, or keep it secret until then: whoever knows the noise can fit an image to it.
    """
    return secrets.randbits(63)


def gaussian_noise(seed: int, image_index: int, purpose: str, chunk: int, shape: Sequence[int]) -> FloatArray:
    """Return standard normal noise of `shape` in float64, a function of its arguments alone (numpy's Philox).

    The global random state of numpy and torch is neither read nor changed. numpy keeps its bit streams over
    versions but not its normal variates, so the version belongs in a run's record (`sampling_config`).
    """
    check_choice(purpose, tuple(PURPOSES), "purpose")
    if seed < 0 or image_index < 0 or chunk < 0:
        raise InputError(
            f"noise: got seed {seed}, image {image_index}, chunk {chunk}; need values of at least 0"
        )
    sequence = np.random.SeedSequence(seed, spawn_key=(PURPOSES[purpose], image_index, chunk))
    return np.random.Generator(np.random.Philox(sequence)).standard_normal(tuple(shape))


def noise_chunk_count(n: int) -> int:
    """Return the number of noise chunks that hold `n` draws."""
    return math.ceil(n / NOISE_CHUNK)


def add_noise(
    pixels: FloatArray, noise: FloatArray, sigma: float, grid: bool = False
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return pixels + sigma * noise in float32, cast once; nothing is clipped.

    Args:
        pixels: float64 (channel, height, width) in [0, 1]; with `grid` as `to_grid` returns them.
        noise: standard normal float64 (draws, channel, height, width); overwritten.
        sigma: in pixel units of [0, 1].
        grid: round the noise to whole 8-bit levels (see the head of this file).
    """
    if not grid:
        noise *= sigma
        noise += pixels
        return noise.astype(np.float32)
    # floor(v + 1/2) commutes with adding whole numbers, ties included; float64 holds them exactly.
    noise *= GRID_LEVELS * sigma
    noise += 0.5
    np.floor(noise, out=noise)
    noise += np.rint(GRID_LEVELS * pixels)
    noise /= GRID_LEVELS
    return noise.astype(np.float32)


def to_grid(pixels: FloatArray, what: str = "image") -> FloatArray:
    """Return an image in [0, 1] moved to the nearest 8-bit levels k / 255, from which it must differ by rounding only.

    Raises:
        InputError: if the image is not an 8-bit image divided by 255.
    """
    levels = np.rint(GRID_LEVELS * pixels)
    away = float(np.abs(GRID_LEVELS * pixels - levels).max())
    if away > GRID_TOLERANCE:
        raise InputError(
            f"grid: {what} lies {away:.2g} of a level off the 8-bit grid k / 255; round it first "
            "(and keep the distance in mind: it is part of the attack), or leave grid mode off"
        )
    return np.asarray(levels / GRID_LEVELS, dtype=np.float64)
