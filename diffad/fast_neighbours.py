"""Nearest neighbours by single-precision search, proved to be those of double precision query by query.

A float32 product is twice as fast as a float64 one and cancels badly near distance zero. So a float32 search only
proposes: `k + _SPARE` candidates a query, whose distances are formed again in float64. A query is settled if no point
that was left out can be nearer than its k-th candidate. With d coordinates, |q| <= Q and |b| <= B a computed
s(b) = |b|^2 / 2 - q.b is off by at most

    E = gamma(d + 4) (Q + B)^2 / 2 + (d + 4) tiny,

gamma at the precision of float32, and tiny its smallest normal number, which pays for products that underflow. Every
point left out has a computed s of at least the last candidate's, c, so its s is at least c - E, and a k-th candidate
with s <= c - E is among the k nearest. Queries that are not settled, because many points lie equally far, are searched
again in float64. Points of another precision than float32 are searched in float64 at once, and so is everything where
float32 products are lowered to TF32 or bfloat16.

The smallest k of a row are found in two steps: they lie in the k blocks of columns with the smallest minima, so that
only these are sorted.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certify.checks import InputError
from diffad.neighbours import nearest

_ROWS, _SPARE = 1024, 6
# queries whose candidates are measured at once, few enough that the differences stay in the processor's cache
_CACHED = 64
# columns of a matrix product (16 MiB), of a stretch whose blocks are sorted at once (32 MiB), and of a block
_PRODUCT, _STRETCH, _WIDTH = 4096, 2 * 4096, 64
_EPSILON, _TINY = torch.finfo(torch.float32).eps / 2, torch.finfo(torch.float32).tiny


def nearest_verified(
    queries: Float[Tensor, "queries dims"], bank: Float[Tensor, "bank dims"], k: int = 1
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return float64 distances to the k nearest points of `bank`, ascending, and their indices; no gradient.

    The same answer as `diffad.neighbours.nearest` up to equally near points. Memory beside the arguments: about
    32 MiB and (k + 6) floats a coordinate for 1024 queries.

    Raises:
        InputError: if the bank has fewer than k points.
    """
    if not 1 <= k <= len(bank):
        raise InputError(f"nearest: got k = {k} for a bank of {len(bank)} points; need 1 <= k <= {len(bank)}")
    spare = k + _SPARE
    single = queries.dtype == bank.dtype == torch.float32
    if spare >= len(bank) or not single or _lowered() or torch.compiler.is_exporting():
        return nearest(queries, bank, k)
    with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
        norms = torch.linalg.vector_norm(bank, dim=1)
        halves, largest = norms.square() / 2, float(norms.max())
        found = [
            _settle(queries[row : row + _ROWS], bank, halves, k, spare, largest)
            for row in range(0, len(queries), _ROWS)
        ]
        distances, indices = torch.cat([part[0] for part in found]), torch.cat([part[1] for part in found])
        open_ = ~torch.cat([part[2] for part in found])
        if bool(open_.any()):
            distances[open_], indices[open_] = nearest(queries[open_], bank, k)
    return distances, indices


def _lowered() -> bool:
    """Whether float32 products may be computed in TF32 or bfloat16, or it can't be known."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set by torch's newer interface, which the older one refuses to read
        return True


def _settle(
    queries: Tensor, bank: Tensor, halves: Tensor, k: int, spare: int, largest: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances (q, k), indices (q, k), and which queries are proved (q,)."""
    values, indices = _propose(queries, bank, halves, spare)
    wide = queries.double()
    exact = torch.cat(
        [
            _distances(wide[row : row + _CACHED], bank, indices[row : row + _CACHED])
            for row in range(0, len(wide), _CACHED)
        ]
    )
    distances, order = exact.topk(k, dim=1, largest=False)
    squares = wide.square().sum(1)
    norms = squares.sqrt() + largest
    terms = (queries.shape[1] + 4) * _EPSILON
    error = terms / (1.0 - terms) * norms.square() / 2 + (queries.shape[1] + 4) * _TINY
    # in units of s, float64: |q - b|^2 / 2 - |q|^2 / 2; another E pays for its own rounding
    last = distances[:, -1].square() / 2 - squares / 2
    return distances, indices.gather(1, order), last <= values[:, -1].double() - 2.0 * error


def _distances(queries: Tensor, bank: Tensor, indices: Tensor) -> Tensor:
    """Return the float64 distances of the queries (q, dims) to the points that `indices` (q, count) name."""
    differences = bank[indices].double().sub_(queries[:, None])
    norms: Tensor = torch.linalg.vector_norm(differences, dim=2)
    return norms


def _propose(queries: Tensor, bank: Tensor, halves: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` smallest computed s (q, count), ascending, and their indices."""
    rows = len(queries)
    best = queries.new_full((rows, count), torch.inf)
    indices = torch.zeros((rows, count), dtype=torch.int64, device=queries.device)
    room = queries.new_empty(rows * _padded(min(_STRETCH, len(bank))))
    for start in range(0, len(bank), _STRETCH):
        stop = min(start + _STRETCH, len(bank))
        width = _padded(stop - start)
        values = room[: rows * width].view(rows, width)
        minima = _fill(values, queries, bank[start:stop], halves[start:stop])
        found, columns = _smallest(values, minima, count)
        best, order = torch.cat([best, found], dim=1).topk(count, dim=1, largest=False)
        indices = torch.cat([indices, columns + start], dim=1).gather(1, order)
    return best, indices


def _fill(values: Tensor, queries: Tensor, bank: Tensor, halves: Tensor) -> Tensor:
    """Write s of a stretch of the bank, infinity behind its end; return the least s of every block of columns."""
    values[:, len(bank) :] = torch.inf
    minima = []
    for start in range(0, len(bank), _PRODUCT):
        stop = min(start + _PRODUCT, len(bank))
        torch.addmm(halves[start:stop], queries, bank[start:stop].T, alpha=-1, out=values[:, start:stop])
        # at once, while the product is cached
        minima.append(values[:, start : _padded(stop)].view(len(queries), -1, _WIDTH).amin(2))
    return torch.cat(minima, dim=1)


def _padded(columns: int) -> int:
    return -(-columns // _WIDTH) * _WIDTH


def _smallest(values: Tensor, minima: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the smallest entries of each row and their columns, sorting the blocks only that can hold them."""
    rows, blocks = minima.shape
    if blocks <= count:
        return values.topk(count, dim=1, largest=False)
    nearest_blocks = minima.topk(count, dim=1, largest=False).indices
    first = torch.arange(rows, device=values.device)[:, None] * blocks
    taken = values.view(-1, _WIDTH).index_select(0, (first + nearest_blocks).flatten()).view(rows, -1)
    found, order = taken.topk(count, dim=1, largest=False)
    return found, nearest_blocks.gather(1, order // _WIDTH) * _WIDTH + order % _WIDTH
