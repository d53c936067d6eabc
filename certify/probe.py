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


def check_uncoupled(
    score: Callable[[Images, Images], Scores], clean: Images, noisy: Images, name: str
) -> None:
    """Score a batch twice, the second time with other images around those in its middle, which must score as before.

    Float arithmetic depends on the shape of a batch and on the place in it, so both stay. In a batch of one image
    (`clean` of length 1) the clean image stays too.

    Args:
        score: float32 `clean` (1 or b, c, h, w) and `noisy` (b, c, h, w) to (b,) or (b, columns).
        clean, noisy: a batch as it will be drawn.
        name: the detector, for the message.

    Raises:
        InputError: if scores differ by more than PROBE_TOLERANCE of the largest one of their column.
    """
    middle = slice(len(noisy) // 4, len(noisy) - len(noisy) // 4)
    before = score(clean, noisy)[middle].astype(np.float64)
    after = score(_other_mates(clean, middle), _other_mates(noisy, middle))[middle].astype(np.float64)
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


def _other_mates(images: Images, middle: slice) -> Images:
    """Return a batch with the same middle; the rest is turned round, inverted and stretched."""
    if len(images) == 1:
        return images
    changed = 1.5 - 2.0 * images[::-1]
    changed[middle] = images[middle]
    return changed


def _scale(scores: FloatArray) -> FloatArray:
    """Return the largest finite magnitude of each column."""
    magnitudes = np.where(np.isfinite(scores), np.abs(scores), 0.0)
    return np.asarray(magnitudes.max(axis=0, keepdims=True), dtype=np.float64)
