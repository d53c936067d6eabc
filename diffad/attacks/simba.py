"""SimBA on a score (Guo et al., ICML 2019): one orthonormal direction at a time, forwards or backwards.

What differs from the authors' code: no early stop; each image walks at its own pace, in an order of its own, and
keeps a direction that leaves the score as it is (plateaus are crossed); sums are projected onto the ball, where the
authors have an L2 budget that grows with every step; when all directions are used up, a new round begins. Along a
pixel in Linf a step goes all the way (2 eps, which the ball cuts to a corner: pixels at +-eps). Else its length (L2) or
its largest entry (Linf) is 2.5 eps over the root of the number of directions there are, or can be tried: as many steps
of equal length at right angles then reach 2.5 eps. Of .1 to 1 eps this was about the best on 16 x 16 digits.

In DCT the lowest frequencies come first, in rings of an eighth of the spectrum with a random order in each. The order
of pixels is random. Two queries a direction at the worst: fewer than twice as many steps as the image has values leave
some of them untouched.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from certify.types import FloatArray
from diffad.attacks.search import Search

_STREAM = 12
_REACH = 2.5  # of eps, by all steps together
_RINGS = 8


def simba(search: Search, steps: int) -> None:
    """Ask for `steps` scores of each row, along single pixels."""
    _, channels, height, width = search.clean.shape
    bases, corner = (np.eye(height), np.eye(width)), 2 * search.threat.eps
    length = corner if search.threat.norm == "linf" else _step_length(search, steps)
    _walk(search, steps, bases, np.zeros((channels, height, width)), length)


def simba_dct(search: Search, steps: int) -> None:
    """Ask for `steps` scores of each row, along the waves of the cosine transform of a channel."""
    _, channels, height, width = search.clean.shape
    down, across = np.arange(height) / height, np.arange(width) / width
    rings = np.floor(_RINGS * np.maximum(down[:, None], across[None, :]))
    bases, rings = (dct_basis(height), dct_basis(width)), np.broadcast_to(rings, (channels, height, width))
    _walk(search, steps, bases, rings, _step_length(search, steps))


def dct_basis(size: int) -> FloatArray:
    """Return the orthonormal cosine basis (frequency, place) of a signal of `size` values (DCT-II)."""
    frequency, place = np.arange(size)[:, None], np.arange(size)[None, :] + 0.5
    basis = math.sqrt(2 / size) * np.cos(math.pi * frequency * place / size)
    basis[0] /= math.sqrt(2)
    return np.asarray(basis)


def _walk(
    search: Search, steps: int, bases: tuple[FloatArray, FloatArray], rings: FloatArray, length: float
) -> None:
    """Try each direction of each row backwards, then forwards, and go on from whatever is no worse.

    A direction is the outer product of a row of each basis in one channel, of size `length` in the norm of the threat.
    """
    down, across = (torch.from_numpy(basis).to(search.clean) for basis in bases)
    generators = [search.generator(row, _STREAM) for row in range(len(search.rows))]
    rounds = -(-steps // rings.size)
    order = np.stack([_order(rings, rounds, generator)[:steps] for generator in generators])
    rows, place, forwards = np.arange(len(order)), np.zeros(len(order), np.int64), np.zeros(len(order), bool)
    best, best_gains = search.start, search.query(search.start)
    for _ in range(steps - 1):
        channel, vertical, horizontal = np.unravel_index(order[rows, place], rings.shape)
        direction = torch.zeros_like(best)
        direction[rows, channel] = down[vertical][:, :, None] * across[horizontal][:, None, :]
        sign = torch.from_numpy(np.where(forwards, 1.0, -1.0)).to(best).view(-1, 1, 1, 1)
        if search.threat.norm == "linf":
            direction = direction / direction.abs().amax((1, 2, 3), keepdim=True)
        points = search.threat.project(best + length * sign * direction, search.clean)
        gains = search.query(points)
        better = gains >= best_gains
        best = torch.where(better.view(-1, 1, 1, 1), points, best)
        best_gains = torch.where(better, gains, best_gains)
        done = better.cpu().numpy() | forwards
        place, forwards = place + done, ~done


def _order(
    rings: FloatArray, rounds: int, generator: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the numbers of all directions, ring after ring and at random within one, `rounds` times over."""
    return np.concatenate([np.argsort(rings.ravel() + generator.random(rings.size)) for _ in range(rounds)])


def _step_length(search: Search, steps: int) -> float:
    return _REACH * search.threat.eps / math.sqrt(min(search.clean[0].numel(), steps))
