"""Exact nearest neighbours in chunks, and the choice of a small bank from many points.

The search ranks bank points b by s(b) = |b|^2 / 2 - q.b, half the squared distance less |q|^2 / 2, one matrix
product a chunk, always in float64: torch's float32 products may be lowered to TF32 or bfloat16 by global
settings that a
certificate cannot see, and cancel badly near distance zero. The distances returned are never those of the
search: the differences to the winners are formed and their norm is taken again.

Search error. With d coordinates, |q| <= Q and |b| <= B, a computed s(b) is off by at most
E = gamma(d + 2) (Q B + B^2 / 2). The i-th smallest of numbers that are all off by at most E is itself off by
at most E, so the i-th neighbour found has s within 2 E of the true i-th, and its squared distance within 4 E.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certify.checks import InputError
from diffad.rounding import gamma

# Entries of one block of the table of distances: 16 MiB of float64, which stays near the cache.
_BLOCK = 1 << 21
_BANK_CHUNK = 4096


def nearest(
    queries: Float[Tensor, "queries dims"], bank: Float[Tensor, "bank dims"], k: int = 1
) -> tuple[Float[Tensor, "queries k"], Int[Tensor, "queries k"]]:
    """Return float64 distances to the k nearest points of `bank` and their indices, nearest first as
    searched.

    Exact up to `search_error`; carries no gradient. Equally near points are told apart arbitrarily.

    Args:
        queries: points, of any floating dtype.
        bank: points; duplicates count as often as they occur.
        k: number of neighbours, at most the size of the bank.
    """
    if not 1 <= k <= len(bank):
        raise InputError(f"nearest: got k = {k} for a bank of {len(bank)} points; need 1 <= k <= {len(bank)}")
    with torch.no_grad():
        rows = max(1, _BLOCK // min(len(bank), _BANK_CHUNK))
        indices = torch.cat([_search(chunk.double(), bank, k) for chunk in torch.split(queries, rows)])
        distances = torch.stack([pair_distance(queries, bank[column]) for column in indices.T], dim=1)
    return distances, indices


def pair_distance(
    points: Float[Tensor, "pairs dims"], others: Float[Tensor, "pairs dims"]
) -> Float[Tensor, " pairs"]:
    """Return the L2 distance of each pair in float64, differentiable, with gradient 0 at distance 0.

    `vector_norm` takes the subgradient 0 where the norm is 0; the square root of a sum of squares gives NaN
    there.
    """
    norms: Tensor = torch.linalg.vector_norm(points.double() - others.double(), dim=1)
    return norms


def search_error(dims: int, query_norm: float, bank_norm: float) -> float:
    """Return 4 E of the module's docstring: how far a squared distance found may lie from the true one.

    `query_norm` and `bank_norm` are the largest L2 norms as computed in float64; their rounding, and that of
    adding |q|^2 / 2 where whole squared distances are compared, is covered by a factor of two.
    """
    return 8.0 * gamma(dims + 4) * (query_norm + bank_norm) ** 2


def _search(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return the indices (queries, k) of the smallest s, ascending; float64 queries of one chunk."""
    best = queries.new_full((len(queries), k), torch.inf)
    indices = torch.zeros((len(queries), k), dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), _BANK_CHUNK):
        chunk = bank[start : start + _BANK_CHUNK].double()
        values = torch.addmm(chunk.square().sum(1) / 2, queries, chunk.T, alpha=-1)
        if k == 1:
            found, columns = values.min(dim=1, keepdim=True)
        else:
            found, columns = values.topk(min(k, len(chunk)), dim=1, largest=False)
        best, order = torch.cat([best, found], dim=1).topk(k, dim=1, largest=False)
        indices = torch.cat([indices, columns + start], dim=1).gather(1, order)
    return indices
