"""Approximate search by faiss: it only proposes neighbours, whose distances are formed exactly in float64.

A score is then the sum of k true distances to normals, perhaps not to the nearest ones: a missed neighbour can only
raise it. That score is the one which is attacked and certified. Each image is searched by itself, so noise certifies
it as it does any score; no Lipschitz constant is proved, since what is found jumps, so the way `none` is closed. An
attacker may push a normal to where the index misses, which the gradient does not show and a black box may find.

The index is no part of a detector's folder: it is built from the bank, by one thread (faiss inserts in the order in
which threads arrive), with the seeds faiss fixes. Searching, every query is compared one by one, not by a matrix
product whose rounding depends on how many queries come together.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from certify.checks import InputError, check_choice
from diffad.fast_neighbours import nearest_verified
from diffad.neighbours import pair_distance

EXACT = "exact"
_LINKS, _BUILD_BREADTH, _BREADTH = 32, 80, 128  # of the HNSW graph
_PER_LIST, _PROBED = 39, 0.25  # faiss wants 39 points a list; share of the lists that are searched
_ONE_BY_ONE = 2**31 - 1


def _hnsw(faiss: Any, dims: int, count: int) -> Any:
    """A navigable graph (Malkov and Yashunin, TPAMI 2020)."""
    index = faiss.IndexHNSWFlat(dims, _LINKS)
    index.hnsw.efConstruction, index.hnsw.efSearch = _BUILD_BREADTH, _BREADTH
    return index


def _ivf(faiss: Any, dims: int, count: int) -> Any:
    """About sqrt(count) k-means cells, of which the nearest quarter is searched."""
    lists = max(1, min(round(math.sqrt(count)), count // _PER_LIST))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dims), dims, lists)
    index.nprobe = max(1, round(_PROBED * lists))
    return index


FAISS: dict[str, Callable[[Any, int, int], Any]] = {"faiss_hnsw": _hnsw, "faiss_ivf": _ivf}
INDEXES = (EXACT, *FAISS)


class Candidates:
    """An index over a bank.

    Args:
        name: key of `FAISS`.
        bank: points (n, d), searched as float32.

    Raises:
        InputError: unknown name, or faiss is not installed.
    """

    def __init__(self, name: str, bank: Float[Tensor, "n d"]) -> None:
        check_choice(name, tuple(FAISS), "index")
        self.faiss = load_faiss()
        points = _array(bank)
        self.index = FAISS[name](self.faiss, points.shape[1], len(points))
        with _steady(self.faiss, threads=1):
            self.index.train(points)
            self.index.add(points)

    def __deepcopy__(self, memo: dict[int, Any]) -> Candidates:
        """Share the index, which nothing changes and Python can't copy."""
        return self

    def propose(self, queries: Float[Tensor, "q d"], count: int) -> Int[Tensor, "q count"]:
        """Return the places in the bank of up to `count` points near each query; -1 where none was found."""
        with _steady(self.faiss, threads=torch.get_num_threads()):
            places = self.index.search(_array(queries), count)[1]
        return torch.from_numpy(np.asarray(places, dtype=np.int64)).to(queries.device)


def nearest_of(
    queries: Float[Tensor, "q d"], bank: Float[Tensor, "n d"], candidates: Int[Tensor, "q c"], k: int
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """Return float64 distances to the k nearest candidates of each query, ascending, and their places in the bank.

    A query with fewer than k candidates (-1 marks a gap) is searched in the whole bank.
    """
    with torch.no_grad():
        found = torch.stack([pair_distance(queries, bank[column.clamp(min=0)]) for column in candidates.T], 1)
        found = found.masked_fill(candidates < 0, torch.inf)
        distances, order = found.topk(k, dim=1, largest=False)
        places = candidates.gather(1, order)
        short = (candidates >= 0).sum(1) < k
        if bool(short.any()):
            distances[short], places[short] = nearest_verified(queries[short], bank, k)
    return distances, places


def load_faiss() -> Any:
    """Import faiss, or say how to get it."""
    if importlib.util.find_spec("faiss") is None:
        raise InputError("faiss is not installed; pip install 'diffad[faiss]', or use index 'exact'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of its SWIG types, on import
        return importlib.import_module("faiss")


@contextmanager
def _steady(faiss: Any, threads: int) -> Iterator[None]:
    """Fix for a while what decides bits in faiss, and put its global settings back."""
    before = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = _ONE_BY_ONE
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before[0])
        faiss.cvar.distance_compute_blas_threshold = before[1]


def _array(points: Tensor) -> Any:
    return np.ascontiguousarray(points.detach().float().cpu().numpy())
