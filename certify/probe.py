"""Does the score of an image depend on the others of its batch? Asked once, before draws are spent.

A score that reads its batch (batch statistics, scores scaled by the batch's extremes) is no function of its own noisy
image, and every certificate in this package is void for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from certify.checks import InputError
from certify.log import Scores
from certify.types import FloatArray

PROBE_TOLERANCE = 1e-5
Images: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


def check_uncoupled(
    score: Callable[[Images, Images], Scores], clean: Images, noisy: Images, name: str
) -> None:
    """Score a batch four times, each time but the first with some images changed; the others must score as before.

    What is computed over a batch may rest on a few images, such as the one of the largest score, so none is left
    alone: the images outside the middle, then those in it, are moved far from all that is usual; at last those in the
    middle are moved closer to the clean ones. Float arithmetic depends on the shape of a batch and on the place in
    it, so both stay. In a batch of one image (`clean` of length 1) the clean image stays too.

    Args:
        score: float32 `clean` (1 or b, c, h, w) and `noisy` (b, c, h, w) to (b,) or (b, columns).
        clean, noisy: a batch as it will be drawn.
        name: the detector, for the message.

    Raises:
        InputError: if scores differ by more than PROBE_TOLERANCE of the largest one of their column.
    """
    place = np.arange(len(noisy))
    middle = (place >= len(noisy) // 4) & (place < len(noisy) - len(noisy) // 4)
    before = score(clean, noisy).astype(np.float64)
    for kept in (middle, ~middle):
        after = score(_stretched(clean, kept), _stretched(noisy, kept)).astype(np.float64)
        _check_same(before[kept], after[kept], name)
    after = score(clean, _calmed(clean, noisy, ~middle)).astype(np.float64)
    _check_same(before[~middle], after[~middle], name)


def _check_same(before: FloatArray, after: FloatArray, name: str) -> None:
    """Refuse scores (kept,) or (kept, columns) that moved by more than rounding; NaN equals NaN."""
    agree = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore"):  # inf - inf
        distance = np.abs(before - after)
    agree |= distance <= PROBE_TOLERANCE * _scale(before)
    if not agree.all():
        worst = float(distance[np.isfinite(distance) & ~agree].max(initial=0.0))
        raise InputError(
            f"{name}: scores of one image depend on the other images of its batch (a score moved by {worst:.3g} "
            "when they changed); call eval(), and remove whatever is computed over a batch or drawn at random"
        )


def _stretched(images: Images, kept: Mask) -> Images:
    """Return a batch with the same images at `kept`; the rest is turned round, inverted and stretched."""
    if len(images) == 1:
        return images
    changed = 1.5 - 2.0 * images[::-1]
    changed[kept] = images[kept]
    return changed


def _calmed(clean: Images, noisy: Images, kept: Mask) -> Images:
    """Return a batch with the same images at `kept`; the rest has half of its noise."""
    changed = 0.5 * (clean + noisy)
    changed[kept] = noisy[kept]
    return changed


def _scale(scores: FloatArray) -> FloatArray:
    """Return the largest finite magnitude of each column."""
    magnitudes = np.where(np.isfinite(scores), np.abs(scores), 0.0)
    return np.asarray(magnitudes.max(axis=0, keepdims=True), dtype=np.float64)
