"""Square attack on a score (Andriushchenko et al., ECCV 2020): random search over squares, by scores alone.

What differs from the authors' code, because a score has no decision to flip: no early stop; every image has squares
of its own (theirs share one position in a batch); the schedule is rescaled to the budget; the search begins with the
better of its start and the paper's (stripes, tiles); an Linf square that would change nothing has its signs turned;
L2 points are projected exactly where the box binds, and the energy that the box cut off is given to the next square.

It needs a score that answers to changes within its squares, and any score does in the end: where it finds more than
a gradient attack, gradients are masked. Where it finds less, nothing follows: random search is slow in many pixels.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from certify.types import FloatArray
from diffad.attacks.features import best_start
from diffad.attacks.search import Search

_STREAM = 11
_AREA = 0.8  # share of the image that the first squares cover
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10 000 queries
_TILES = 5  # a side of the image, in the L2 start


def square(search: Search, steps: int) -> None:
    """Ask for `steps` scores of each row, and keep a square wherever the score does not get better for the defender.

    A change that leaves the score as it is is kept too: piecewise constant scores are crossed on their plateaus.
    """
    _search_from(search, search.start, steps)


def square_target(search: Search, steps: int) -> None:
    """Search as `square` does from the best of other images, as `feature_target` does by gradients.

    Where the ball holds them, the score that is reached is at least as bad as theirs; squares alone hardly get there.
    Costs NEAREST + WORST + 1 scores (`attacks.features`) more than `square`.
    """
    _search_from(search, best_start(search), steps)


def square_area(progress: float) -> float:
    """Return the share of the image that a square covers after a share `progress` of the budget."""
    passed = sum(10_000 * progress > halving for halving in _HALVINGS)
    return float(_AREA / 2**passed)


def _search_from(search: Search, begin: Tensor, steps: int) -> None:
    generators = [search.generator(row, _STREAM) for row in range(len(search.rows))]
    channels = search.clean.shape[1]
    first, propose = (_stripes, _linf_square) if search.threat.norm == "linf" else (_tiles, _l2_square)
    start = first(search, generators)
    # row by row, so that no draw depends on the batch: two corners, an orientation, a sign for each channel
    draws = np.stack([generator.random((steps, 5 + channels)) for generator in generators], axis=1)
    best, best_gains = begin, search.query(begin)
    for step in range(1, steps):
        area = square_area(step / steps)
        points = start if step == 1 else propose(search, best, area, draws[step])
        gains = search.query(points)
        better = gains >= best_gains
        best = torch.where(better.view(-1, 1, 1, 1), points, best)
        best_gains = torch.where(better, gains, best_gains)


# ---- Linf: squares of one colour at the corners of the cube


def _stripes(search: Search, generators: list[np.random.Generator]) -> Tensor:
    """Return the clean images with vertical stripes of size eps, a sign for each column and channel."""
    _, channels, _, width = search.clean.shape
    signs = _signs(
        np.stack([generator.random((channels, 1, width)) for generator in generators]), search.clean
    )
    return search.threat.project(search.clean + search.threat.eps * signs, search.clean)


def _linf_square(search: Search, best: Tensor, area: float, draws: FloatArray) -> Tensor:
    """Return `best` with one square of each image moved by 2 eps, a sign for each channel, then projected."""
    height, width = best.shape[2:]
    side = _side(area, height, width)
    inside, _, _ = _window(draws[:, :2], side, best)
    change = 2 * search.threat.eps * inside * _signs(draws[:, 5:, None, None], best)
    points = search.threat.project(best + change, search.clean)
    same = (points == best).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(same, search.threat.project(best - change, search.clean), points)


# ---- L2: pairs of opposite pyramids, which take their energy from a second square


def _tiles(search: Search, generators: list[np.random.Generator]) -> Tensor:
    """Return the clean images with 5 x 5 tiles of pyramids, a sign and an orientation each, of length eps."""
    _, channels, height, width = search.clean.shape
    side = max(1, min(height, width) // _TILES)
    count = (height // side, width // side)
    draws = np.stack([generator.random((channels + 1, *count)) for generator in generators])
    pyramids = _pyramids(side).to(search.clean)
    upright = pyramids.repeat(*count)
    lying = pyramids.T.contiguous().repeat(*count)
    signs = _signs(draws, search.clean).repeat_interleave(side, 2).repeat_interleave(side, 3)
    tiles = signs[:, :-1] * torch.where(signs[:, -1:] > 0, upright, lying)
    top, left = ((whole - used) // 2 for whole, used in zip((height, width), tiles.shape[2:], strict=True))
    delta = torch.zeros_like(search.clean)
    delta[:, :, top : top + tiles.shape[2], left : left + tiles.shape[3]] = tiles
    return search.threat.project(search.clean + search.threat.eps * search.threat.ascent(delta), search.clean)


def _l2_square(search: Search, best: Tensor, area: float, draws: FloatArray) -> Tensor:
    """Return `best` with one square of each image redrawn, brought back to length eps from a second square.

    The new square is the direction of the old one plus a pair of pyramids (Algorithm 3 of the paper); each channel
    of it gets an equal part of the energy that the rest of the image leaves.
    """
    (height, width), channels = best.shape[2:], best.shape[1]
    side = min(max(_side(area, height, width), 3) | 1, height, width)
    inside, across, down = _window(draws[:, :2], side, best)
    drained, _, _ = _window(draws[:, 2:4], side, best)
    delta = best - search.clean
    pyramids = _pyramids(side).to(best)
    upright = pyramids[down[:, :, None], across[:, None, :]]
    lying = pyramids[across[:, None, :], down[:, :, None]]
    shape = torch.where(_signs(draws[:, 4, None, None], best) > 0, upright, lying)[:, None]
    old = delta * inside
    new = _unit(old) + inside * shape * _signs(draws[:, 5:, None, None], best)
    rest = torch.where(inside | drained, 0.0, delta)
    left = (search.threat.radius**2 - rest.square().sum((1, 2, 3), keepdim=True)).clamp_min(0.0)
    return search.threat.project(search.clean + rest + _unit(new) * (left / channels).sqrt(), search.clean)


def _pyramids(side: int) -> Tensor:
    """Return two pyramids of opposite sign, one above the other, (side, side) of unit length."""
    both = torch.cat([_pyramid(side // 2, side), -_pyramid(side - side // 2, side)])
    unit: Tensor = both / torch.linalg.vector_norm(both)
    return unit


def _pyramid(height: int, width: int) -> Tensor:
    """Return the sum of 1 / (k + 1)^2 over all k from the distance to the centre on, (height, width) of unit length."""
    down, across = (torch.arange(size) - size // 2 for size in (height, width))
    distance = torch.maximum(down.abs()[:, None], across.abs()[None, :])
    terms = 1.0 / torch.arange(1, max(height // 2, width // 2) + 2, dtype=torch.float64).square()
    sums = terms.flip(0).cumsum(0).flip(0)[distance]
    return sums / torch.linalg.vector_norm(sums) if len(sums) else sums


# ---- shared


def _side(area: float, height: int, width: int) -> int:
    return min(max(round(math.sqrt(area * height * width)), 1), height, width)


def _window(corners: FloatArray, side: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the squares (b, 1, h, w) with corners drawn by (b, 2) in [0, 1), and each pixel's place across and down.

    Places (b, w) and (b, h) count from the corner and are cut to [0, side).
    """
    places, inside = [], []
    for axis, size in enumerate(like.shape[2:]):
        corner = np.floor(corners[:, axis] * (size - side + 1)).astype(np.int64)
        place = torch.arange(size, device=like.device) - torch.from_numpy(corner).to(like.device)[:, None]
        inside.append((place >= 0) & (place < side))
        places.append(place.clamp(0, side - 1))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None], places[1], places[0]


def _signs(draws: FloatArray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.where(draws < 0.5, -1.0, 1.0)).to(like)


def _unit(values: Tensor) -> Tensor:
    """Return each channel at unit length; one of zeros stays."""
    length = torch.linalg.vector_norm(values, dim=(2, 3), keepdim=True)
    return values / torch.where(length > 0, length, 1.0)
