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

# What counts as rounding. An offset, such as the constant of a log-likelihood, makes scores large without moving one
# against another, so their size allows only what their dtype cannot resolve: the sums of a float32 network are off by
# up to 1e-6, a dozen ulps, of what they add up. The rest is measured against how far scores lie apart.
ULPS = 32
SPREAD_SHARE = 1e-5
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
        InputError: if scores differ by more than `rounding` allows in their column.
    """
    place = np.arange(len(noisy))
    middle = (place >= len(noisy) // 4) & (place < len(noisy) - len(noisy) // 4)
    before = score(clean, noisy)
    for kept in (middle, ~middle):
        after = score(_stretched(clean, kept), _stretched(noisy, kept))
        _check_same(before[kept], after[kept], name)
    after = score(clean, _calmed(clean, noisy, ~middle))
    _check_same(before[~middle], after[~middle], name)


def rounding(scores: FloatArray, ulp: float) -> FloatArray:
    """Return how far scores (n,) or (n, columns) of one meaning may move by rounding alone, for each column (1, ...).

    ULPS units of the last place at the largest of them, and SPREAD_SHARE of the distance between smallest and largest.

    Args:
        scores: float64; what is not finite counts for nothing.
        ulp: of the dtype that they were returned in, at 1: `finfo(dtype).eps`.
    """
    finite = np.isfinite(scores)
    size = np.where(finite, np.abs(scores), 0.0).max(axis=0, keepdims=True)
    highest = np.where(finite, scores, -np.inf).max(axis=0, keepdims=True)
    lowest = np.where(finite, scores, np.inf).min(axis=0, keepdims=True)
    spread = np.maximum(highest - lowest, 0.0)  # -inf if none is finite
    return np.asarray(ULPS * ulp * size + SPREAD_SHARE * spread, dtype=np.float64)


def _check_same(given: Scores, found: Scores, name: str) -> None:
    """Refuse scores (kept,) or (kept, columns) that moved by more than rounding; NaN equals NaN."""
    before, after = given.astype(np.float64), found.astype(np.float64)
    agree = (before == after) | (np.isnan(before) & np.isnan(after))
    with np.errstate(invalid="ignore"):  # inf - inf
        distance = np.abs(before - after)
    agree |= distance <= rounding(before, float(np.finfo(given.dtype).eps))
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
