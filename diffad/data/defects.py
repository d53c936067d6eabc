"""Synthetic defects with masks and a known L2 size.

A defect is a convex blend, `image + a * (altered - image)` with 0 < a <= 1, so it never leaves [0, 1],
nothing is clipped, and its L2 norm is linear in `a`: a norm is drawn first, then `a` meets it, and geometries
that cannot meet it are drawn again. `surface` styles suit textures and industrial surfaces, the `shape` style
suits objects and characters. They choose sigma, timestep and score on the validation part; real anomalies are
never used there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.ndimage import map_coordinates

from certify.checks import InputError
from diffad.data.records import quantise

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Rng: TypeAlias = np.random.Generator

REFERENCE_SIZE = 32
LEAST_DEVIATION = 0.05  # standard deviation of pixels below which an image counts as this pale, not paler
TRIES = 25  # geometries drawn for one kind and one norm before the next kind and a new norm are tried
ROUNDS = 40


@dataclass(frozen=True)
class DefectStyle:
    """What kinds are planted, how large and how strong.

    `norms` is (lowest, most likely, highest) L2 norm on a 32 x 32 grey image; it grows with the side and with
    the square root of the channels, so that a defect of the same look has the same place in the range. Under
    `of_contrast` it is a share of the image's own contrast, the L2 norm of the image minus its mean: a part
    missing from a pale object is a smaller change. `radius`, `length` and `width` are fractions of the side.
    """

    kinds: tuple[str, ...]
    norms: tuple[float, float, float]
    radius: tuple[float, float]
    length: tuple[float, float]
    width: tuple[float, float]
    of_contrast: bool = False

    def norm_range(self, image: Array) -> tuple[float, float, float]:
        """Return (lowest, most likely, highest) L2 norm for one image (channel, height, width)."""
        scale = np.sqrt(image.size) / REFERENCE_SIZE
        if self.of_contrast:
            deviation = max(float(image.std()), LEAST_DEVIATION)
            scale = np.sqrt(image.size) * deviation
        low, mode, high = (float(norm * scale) for norm in self.norms)
        return low, mode, high


SURFACE_TEST = DefectStyle(
    ("blob", "scratch", "stain", "paste"), (0.9, 2.0, 3.3), (0.07, 0.17), (0.3, 0.9), (0.02, 0.045)
)
# Validation leans to other sizes than the test: what it chooses must not be tuned to the test's generator.
SURFACE = DefectStyle(
    ("blob", "scratch", "stain", "paste"), (0.8, 1.7, 3.6), (0.06, 0.20), (0.25, 0.75), (0.018, 0.05)
)
# Photographs of real surfaces: defects are smaller and fainter there.
INDUSTRIAL = DefectStyle(
    ("blob", "scratch", "stain", "paste"), (0.15, 0.5, 2.0), (0.015, 0.14), (0.1, 0.6), (0.004, 0.02)
)
SHAPE = DefectStyle(
    ("paste", "erase", "stroke", "warp"),
    (0.25, 0.45, 0.75),
    (0.14, 0.28),
    (0.3, 0.7),
    (0.05, 0.08),
    of_contrast=True,
)


class Planted(NamedTuple):
    """A defective image (channel, height, width), its mask (height, width), its kind and its L2 norm."""

    image: Array
    mask: Mask
    kind: str
    l2: float


def plant(
    image: Array, donor: Array, rng: Rng, style: DefectStyle, first: int = 0, levels: int = 65535
) -> Planted:
    """Plant one defect in `image`, float64 (channel, height, width) in [0, 1].

    `donor` is another normal image of the same shape, the source of pasted patches. The kind is
    `style.kinds[first % len]`, or the next one where an image allows no defect of that kind and size. The
    result is rounded to multiples of 1 / `levels`. Raises `InputError` when no draw meets the range of norms.
    """
    low, mode, high = style.norm_range(image)
    for attempt in range(ROUNDS):
        kind = style.kinds[(first + attempt // 3) % len(style.kinds)]
        target = rng.triangular(low, mode, high)
        for _ in range(TRIES):
            planted = _attempt(image, donor, rng, style, kind, target, levels)
            if planted is not None and low <= planted.l2 <= high:
                return planted
    # defects of objects follow the contrast, of which a smooth surface has none: the other layout has others
    way_out = " Surfaces, not objects, are given as mvtec:FOLDER" if style.of_contrast else ""
    raise InputError(
        f"synthetic defects: no {', '.join(style.kinds)} of L2 norm {low:.2g} to {high:.2g} fits an "
        f"image with values in [{image.min():.2g}, {image.max():.2g}]; is the image blank?{way_out}"
    )


def _attempt(
    image: Array, donor: Array, rng: Rng, style: DefectStyle, kind: str, target: float, levels: int
) -> Planted | None:
    altered, region = KINDS[kind](image, donor, rng, style)
    full = float(np.linalg.norm(altered - image))
    blend = target / full if full > 0 else np.inf
    if not LEAST_BLEND[kind] <= blend <= 1.0:
        return None
    result = quantise(image + blend * (altered - image), levels)
    change = result - image
    mask = region & (np.abs(change).max(axis=0) > 0.01)
    return Planted(result, mask, kind, float(np.linalg.norm(change))) if mask.any() else None


def blob(image: Array, donor: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Mask]:
    """A compact, slightly oval spot, dark or bright: a hole, a drop, a bead."""
    x, y, pixel = _axes(image)
    radius, squeeze, angle = rng.uniform(*style.radius), rng.uniform(0.65, 1.0), rng.uniform(0, np.pi)
    dx, dy = x - rng.uniform(0.12, 0.88), y - rng.uniform(0.12, 0.88)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    soft = _edge(radius - np.hypot(along, across / squeeze), pixel)
    return _cover(image, soft, _extreme(rng)), soft > 0.5


def scratch(image: Array, donor: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Mask]:
    """A thin bent line that fades towards its ends, dark or bright."""
    distance, position = _curve(image, rng, style)
    width = max(rng.uniform(*style.width), 0.6 / image.shape[-1])
    soft = np.exp(-0.5 * (distance / width) ** 2) * (1 - np.abs(2 * position - 1) ** 4)
    return _cover(image, soft, _extreme(rng)), soft > 0.35


def stain(image: Array, donor: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Mask]:
    """A ragged patch that darkens or brightens the surface but leaves its structure visible."""
    soft = _ragged(image, rng, 1.5 * style.radius[0], 1.7 * style.radius[1])
    tone, strength = (0.0, 0.75) if rng.uniform() < 0.6 else (1.0, 0.6)
    return _cover(image, strength * soft, tone), soft > 0.5


def paste(image: Array, donor: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Mask]:
    """A rectangle cut out of another normal image: each part is plausible, the whole is not."""
    _, height, width = image.shape
    tall, wide = (
        max(2, round(rng.uniform(1.6, 2.6) * rng.uniform(*style.radius) * side)) for side in (height, width)
    )
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    source_top, source_left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    altered, region = image.copy(), np.zeros((height, width), dtype=bool)
    window = (slice(top, top + tall), slice(left, left + wide))
    altered[:, *window] = donor[:, source_top : source_top + tall, source_left : source_left + wide]
    region[window] = True
    return altered, region


def erase(image: Array, donor: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Mask]:
    """A ragged region filled with the background (the median of the image's border): a part is missing."""
    border = np.concatenate([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], axis=1)
    soft = _ragged(image, rng, *style.radius)
    return _cover(image, soft, np.median(border, axis=1)[:, None, None]), soft > 0.5


def stroke(image: Array, donor: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Mask]:
    """A bent stroke in the colour of the image's brightest or darkest part: a part too many."""
    distance, _ = _curve(image, rng, style)
    soft = _edge(max(rng.uniform(*style.width), 0.5 / image.shape[-1]) - distance, 1.0 / image.shape[-1])
    grey = image.mean(axis=0)
    ink = grey.argmax() if grey.max() - np.median(grey) >= np.median(grey) - grey.min() else grey.argmin()
    return _cover(image, soft, image.reshape(len(image), -1)[:, ink][:, None, None]), soft > 0.5


def warp(image: Array, donor: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Mask]:
    """A local push and twist: parts are bent out of place."""
    x, y, _ = _axes(image)
    dx, dy = x - rng.uniform(0.25, 0.75), y - rng.uniform(0.25, 0.75)
    falloff = np.exp(-0.5 * (dx**2 + dy**2) / rng.uniform(*style.radius) ** 2)
    push, direction, twist = rng.uniform(0.05, 0.2), rng.uniform(0, 2 * np.pi), rng.uniform(-1.5, 1.5)
    source_x = x + falloff * (push * np.cos(direction) + twist * dy)
    source_y = y + falloff * (push * np.sin(direction) - twist * dx)
    _, height, width = image.shape
    places = np.stack([source_y * height - 0.5, source_x * width - 0.5])
    altered = np.stack([map_coordinates(plane, places, order=1, mode="nearest") for plane in image])
    return altered, np.abs(altered - image).max(axis=0) > 0.1


KINDS: dict[str, Callable[[Array, Array, Rng, DefectStyle], tuple[Array, Mask]]] = {
    "blob": blob,
    "scratch": scratch,
    "stain": stain,
    "paste": paste,
    "erase": erase,
    "stroke": stroke,
    "warp": warp,
}


# The least share of the altered picture in the blend: a defect is small rather than a faint haze.
LEAST_BLEND = {
    "blob": 0.35,
    "scratch": 0.35,
    "stain": 0.35,
    "paste": 0.75,
    "erase": 0.6,
    "stroke": 0.6,
    "warp": 0.6,
}


def _axes(image: Array) -> tuple[Array, Array, float]:
    """Return x and y of the pixel centres as fractions of the side, and the size of a pixel."""
    _, height, width = image.shape
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return x, y, 1.0 / width


def _edge(depth: Array, softness: float) -> Array:
    """Turn a signed depth (positive inside) into coverage in [0, 1] with an edge of about one pixel."""
    return 0.5 + 0.5 * np.tanh(2.0 * depth / softness)


def _cover(image: Array, soft: Array, tone: float | Array) -> Array:
    return image + soft * (tone - image)


def _extreme(rng: Rng) -> float:
    return float(rng.uniform(0.0, 0.12) if rng.uniform() < 0.5 else rng.uniform(0.88, 1.0))


def _ragged(image: Array, rng: Rng, smallest: float, largest: float) -> Array:
    """Return soft coverage of a random star-shaped region: a circle whose radius waves with the angle."""
    x, y, pixel = _axes(image)
    dx, dy = x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8)
    angle, radius = np.arctan2(dy, dx), np.full_like(x, 1.0)
    for wave in (2, 3, 5):
        radius += rng.uniform(0, 0.5 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    return _edge(rng.uniform(smallest, largest) * radius - np.hypot(dx, dy), 1.5 * pixel)


def _curve(image: Array, rng: Rng, style: DefectStyle) -> tuple[Array, Array]:
    """Return each pixel's distance to a random bent line (quadratic Bezier curve) and its place along it."""
    x, y, _ = _axes(image)
    length, angle, bend = rng.uniform(*style.length), rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
    middle = rng.uniform(0.25, 0.75, 2)
    ahead, aside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    start, end = middle - 0.5 * length * ahead, middle + 0.5 * length * ahead
    control = middle + bend * length * aside
    t = np.linspace(0.0, 1.0, 65)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    distances = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    return distances.min(axis=-1), t[distances.argmin(axis=-1), 0]
