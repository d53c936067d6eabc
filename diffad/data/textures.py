"""Procedural textures: every image has its own phase, angle and scale, and its own seed.

The generator is frozen: a test holds the fingerprint of the default split, so a change of any number below is
a new data set and must say so. Images are rounded to 8 bits, like files of a camera.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from certify.checks import check_choice

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Rng: TypeAlias = np.random.Generator

REFERENCE_SIZE = (
    32  # lengths below are pixels of a 32 x 32 image; larger images show the same scene in more detail
)


def render(family: str, rng: Rng, size: int = REFERENCE_SIZE) -> Array:
    """Draw one texture, float64 (size, size) in [0, 1].

    `family` is one of `FAMILIES`. Angle, phase, period, brightness, contrast and a faint sensor noise
    (standard deviation .01) are drawn from `rng`.
    """
    check_choice(family, tuple(FAMILIES), "texture family")
    axis = (np.arange(size) + 0.5) * (REFERENCE_SIZE / size)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    pattern = FAMILIES[family](rng, x, y)
    dark, bright = rng.uniform(0.18, 0.24), rng.uniform(0.74, 0.80)
    image = dark + (bright - dark) * pattern + rng.normal(0.0, 0.01, pattern.shape)
    return np.clip(image, 0.0, 1.0)


def grid(rng: Rng, x: Array, y: Array) -> Array:
    """Two families of bright lines at right angles, as in a wire mesh."""
    u, v = _turn(rng, x, y, np.pi / 2)
    period, width = rng.uniform(5.5, 7.5), rng.uniform(0.85, 1.05)
    return np.maximum(
        _line(u + rng.uniform(0, period), period, width), _line(v + rng.uniform(0, period), period, width)
    )


def stripes(rng: Rng, x: Array, y: Array) -> Array:
    """Soft parallel stripes, as in brushed or rolled material."""
    u, _ = _turn(rng, x, y, np.pi)
    return _soft_square(u, rng.uniform(5.0, 8.0), rng.uniform(0, 1), sharpness=2.0)


def checker(rng: Rng, x: Array, y: Array) -> Array:
    """A chessboard with soft edges."""
    u, v = _turn(rng, x, y, np.pi / 2)
    period = rng.uniform(8.0, 12.0)
    product = np.sin(2 * np.pi * (u / period + rng.uniform())) * np.sin(
        2 * np.pi * (v / period + rng.uniform())
    )
    return 0.5 + 0.5 * np.tanh(3.0 * product)


def weave(rng: Rng, x: Array, y: Array) -> Array:
    """Plain weave: round threads that pass over and under each other in turn."""
    u, v = _turn(rng, x, y, np.pi / 2)
    pitch = rng.uniform(4.5, 6.5)
    u, v = u / pitch + rng.uniform(0, 2), v / pitch + rng.uniform(0, 2)
    over = np.cos(np.pi * u) * np.cos(np.pi * v)  # its sign says which thread lies on top
    across, along = np.abs(np.sin(np.pi * u)), np.abs(np.sin(np.pi * v))
    blend = 0.5 + 0.5 * np.tanh(4.0 * over)
    return blend * across * (0.55 + 0.45 * along) + (1 - blend) * along * (0.55 + 0.45 * across) * 0.8


def dots(rng: Rng, x: Array, y: Array) -> Array:
    """Round dots on a square lattice, as in perforated sheet."""
    u, v = _turn(rng, x, y, np.pi / 2)
    pitch = rng.uniform(6.0, 8.5)
    du, dv = _to_nearest(u + rng.uniform(0, pitch), pitch), _to_nearest(v + rng.uniform(0, pitch), pitch)
    radius = rng.uniform(0.28, 0.34) * pitch
    return 0.5 - 0.5 * np.tanh((np.hypot(du, dv) - radius) / 0.7)


def noise(rng: Rng, x: Array, y: Array) -> Array:
    """Random waves of one wavelength in all directions, as in leather or a cast surface."""
    waves = 24
    period = rng.uniform(5.0, 8.0) * rng.uniform(0.85, 1.2, waves)
    angle, phase = rng.uniform(0, np.pi, waves), rng.uniform(0, 2 * np.pi, waves)
    kx, ky = 2 * np.pi * np.cos(angle) / period, 2 * np.pi * np.sin(angle) / period
    field: Array = np.cos(x[..., None] * kx + y[..., None] * ky + phase).sum(-1) / np.sqrt(waves / 2)
    return 0.5 + 0.5 * np.tanh(0.8 * field)


FAMILIES: dict[str, Callable[[Rng, Array, Array], Array]] = {
    "grid": grid,
    "stripes": stripes,
    "checker": checker,
    "weave": weave,
    "dots": dots,
    "noise": noise,
}


def _turn(rng: Rng, x: Array, y: Array, period: float) -> tuple[Array, Array]:
    """Rotate the coordinates by a random angle in [0, period)."""
    angle = rng.uniform(0, period)
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _to_nearest(u: Array, period: float) -> Array:
    """Return the signed distance to the nearest multiple of `period`."""
    distance: Array = u - period * np.round(u / period)
    return distance


def _line(u: Array, period: float, width: float) -> Array:
    """Return soft lines of Gaussian profile, one every `period`."""
    profile: Array = np.exp(-0.5 * (_to_nearest(u, period) / width) ** 2)
    return profile


def _soft_square(u: Array, period: float, phase: float, sharpness: float) -> Array:
    return 0.5 + 0.5 * np.tanh(sharpness * np.sin(2 * np.pi * (u / period + phase)))
