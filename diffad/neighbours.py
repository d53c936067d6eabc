"""Exact nearest neighbours in chunks, and the choice of a small bank from many points.

The search ranks bank points b by s(b) = |b|^2 / 2 - q.b, half the squared distance less |q|^2 / 2, one matrix
product a chunk, always in float64: torch's float32 products may be lowered to TF32 or bfloat16 by global
settings that a certificate cannot see, and cancel badly near distance zero. The distances returned are never
those of the search: the differences to the winners are formed and their norm is taken again.

Search error. With d coordinates, |q| <= Q and |b| <= B, a computed s(b), with or without the term |q|^2 / 2,
is off by at most E = gamma(d + 4) (Q + B)^2 / 2. The i-th smallest of numbers that are off by at most E is
itself off by at most E, so the i-th neighbour found has s within 2 E of the true i-th, and its squared
distance within 4 E.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certify.checks import InputError
from diffad.rounding import gamma

# One block of the table of distances: 16 MiB of float64, which stays near the cache.
_ROWS, _BANK_CHUNK = 512, 4096
# `farthest` begins with this share of the bank.
_FIRST_SHARE = 32


def nearest(
    queries: Float[Tensor, "queries dims"], bank: Float[Tensor, "bank dims"], k: int = 1
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return float64 distances to the k nearest points of `bank`, ascending as searched, and their indices.

    Exact up to `search_error`; carries no gradient. Equally near points are told apart arbitrarily.

    Args:
        queries: points, of any floating dtype.
        bank: points; duplicates count as often as they occur.
        k: number of neighbours, at most the size of the bank.
    """
    if not 1 <= k <= len(bank):
        raise InputError(f"nearest: got k = {k} for a bank of {len(bank)} points; need 1 <= k <= {len(bank)}")
    with torch.no_grad():
        _, indices = (_whole_table if torch.compiler.is_exporting() else _search)(queries, bank, k)
        distances = torch.stack([pair_distance(queries, bank[column]) for column in indices.T], dim=1)
    return distances, indices


def farthest(
    sets: Float[Tensor, "sets points dims"], bank: Float[Tensor, "bank dims"]
) -> tuple[Int[Tensor, " sets"], Int[Tensor, " sets"]]:
    """Return for each set its point farthest from the bank, as an index, and that point's nearest bank point.

    The distance of this pair is the directed Hausdorff distance max_q min_b |q - b| of the set to the bank.
    What part of the bank was searched bounds the distance of each point from above. The part grows in stages;
    at each, the point with the largest bound is searched in full, and points whose bound is below that are
    left out: most points never need the whole bank.

    Exactness: the winner has seen the whole bank, so its squared distance is within 4 E of its true one,
        which is at
    most the ideal maximum. A point left out has a bank point whose computed value is below the winner's, so
    the ideal maximum exceeds the winner's squared distance by at most 4 E too: `search_error` on both sides.
    """
    with torch.no_grad():
        if torch.compiler.is_exporting():
            return _farthest_at_once(sets, bank)
        offsets = sets.double().square().sum(2) / 2
        bounds = torch.full_like(offsets, torch.inf)
        neighbours = torch.zeros_like(bounds, dtype=torch.int64)
        floor = torch.full_like(bounds[:, :1], -torch.inf)
        every = torch.arange(len(sets), device=sets.device)

        def tighten(rows: Tensor, columns: Tensor, start: int, stop: int) -> None:
            """Lower the bounds of some points by what bank[start:stop] holds."""
            values, indices = _search(sets[rows, columns], bank[start:stop], 1)
            found, old = values[:, 0] + offsets[rows, columns], bounds[rows, columns]
            bounds[rows, columns] = torch.minimum(found, old)
            best = torch.where(found < old, indices[:, 0] + start, neighbours[rows, columns])
            neighbours[rows, columns] = best

        for start, stop in _stages(len(bank)):
            rows, columns = (bounds >= floor).nonzero(as_tuple=True)
            tighten(rows, columns, start, stop)
            leaders = bounds.argmax(1)
            tighten(every, leaders, stop, len(bank))
            floor = torch.maximum(floor, bounds[every, leaders][:, None])
        winners = bounds.argmax(1)
        return winners, neighbours[every, winners]


def pair_distance(
    points: Float[Tensor, "pairs dims"], others: Float[Tensor, "pairs dims"]
) -> Float[Tensor, " pairs"]:
    """Return the L2 distance of each pair in float64, differentiable, with gradient 0 at distance 0.

    `vector_norm` takes the subgradient 0 where the norm is 0; the square root of a sum of squares gives NaN
    there.
    """
    norms: Tensor = torch.linalg.vector_norm(points.double() - others.double(), dim=1)
    return norms


def largest_norm(points: Float[Tensor, "points dims"]) -> float:
    """Return the largest L2 norm of the points, computed in float64."""
    return float(torch.linalg.vector_norm(points, dim=1, dtype=torch.float64).max())


def search_error(dims: int, query_norm: float, bank_norm: float) -> float:
    """Return how far the squared distance of a neighbour found may lie from the true one.

    Twice the 4 E of the module's docstring, which pays for the rounding of the two norms themselves.
    """
    return 4.0 * gamma(dims + 4) * (query_norm + bank_norm) ** 2


def random_choice(count: int, size: int, *, seed: int) -> Int[Tensor, " size"]:
    """Return `size` different numbers below `count`, in random order; all of them if there are no more."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:size]


def k_centre(points: Float[Tensor, "points dims"], size: int, *, seed: int) -> Int[Tensor, " size"]:
    """Return the indices of `size` points chosen by farthest-first traversal from a random first one.

    Gonzalez (Theoretical Computer Science 38, 1985): the largest distance of any point to its nearest chosen
    one is at most twice the least that `size` centres can reach. Needs `size` passes over the points.
    """
    if not 1 <= size <= len(points):
        raise InputError(
            f"k_centre: got size {size} for {len(points)} points; need 1 <= size <= {len(points)}"
        )
    with torch.no_grad():
        points = points.double()
        squares = points.square().sum(1)
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.empty(size, dtype=torch.int64, device=points.device)
        chosen[0] = int(torch.randint(len(points), (1,), generator=generator))
        distances = torch.full_like(squares, torch.inf)
        for step in range(size):
            centre = chosen[step]
            distances = torch.minimum(distances, squares - 2 * (points @ points[centre]) + squares[centre])
            distances[centre] = -torch.inf
            if step + 1 < size:
                chosen[step + 1] = distances.argmax()
    return chosen


def _stages(size: int) -> list[tuple[int, int]]:
    """Return slices of the bank, the first 1 / `_FIRST_SHARE` of it, each later one as large as all before."""
    stops = [0]
    while stops[-1] < size:
        stops.append(min(size, max(2 * stops[-1], -(-size // _FIRST_SHARE))))
    return list(pairwise(stops))


def _search(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest s (queries, k), ascending, and their indices; infinity and 0 for an empty bank."""
    best = queries.new_full((len(queries), k), torch.inf, dtype=torch.float64)
    indices = torch.zeros((len(queries), k), dtype=torch.int64, device=queries.device)
    # s is one inner product of (q, 1) with (-b, |b|^2 / 2)
    queries = torch.cat([queries.double(), queries.new_ones(len(queries), 1, dtype=torch.float64)], dim=1)
    block = queries.new_empty(min(len(queries), _ROWS), min(len(bank), _BANK_CHUNK))
    for start in range(0, len(bank), _BANK_CHUNK):
        chunk = bank[start : start + _BANK_CHUNK].double()
        chunk = torch.cat([-chunk, chunk.square().sum(1, keepdim=True) / 2], dim=1)
        for row in range(0, len(queries), _ROWS):
            rows = slice(row, row + _ROWS)
            values = torch.mm(queries[rows], chunk.T, out=block[: len(queries[rows]), : len(chunk)])
            if k == 1:
                found, columns = values.min(dim=1, keepdim=True)
            else:
                found, columns = values.topk(min(k, len(chunk)), dim=1, largest=False)
            best[rows], order = torch.cat([best[rows], found], dim=1).topk(k, dim=1, largest=False)
            indices[rows] = torch.cat([indices[rows], columns + start], dim=1).gather(1, order)
    return best, indices


def _whole_table(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what `_search` does without its loops over chunks, which a graph for any number of queries can't hold."""
    wide = bank.double()
    values = wide.square().sum(1) / 2 - queries.double() @ wide.T
    return values.topk(k, dim=1, largest=False)


def _farthest_at_once(sets: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `farthest` does, from the distance of every point: its stages depend on the values."""
    values, indices = _whole_table(sets.flatten(0, 1), bank, 1)
    bounds = values.view(sets.shape[:2]) + sets.double().square().sum(2) / 2
    winners = bounds.argmax(1, keepdim=True)
    return winners[:, 0], indices.view(sets.shape[:2]).gather(1, winners)[:, 0]
