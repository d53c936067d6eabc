import copy
import importlib.util

import faiss
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.neighbours import nearest
from diffad.zarnd.candidates import FAISS, Candidates, nearest_of


def points(count: int, seed: int, dims: int = 16) -> Tensor:
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed))


BANK, QUERIES = points(3000, 0), points(50, 1)


@pytest.fixture(scope="module", params=FAISS)
def index(request: pytest.FixtureRequest) -> Candidates:
    return Candidates(request.param, BANK)


def test_found_neighbours_have_their_exact_distance_and_are_never_nearer_than_the_nearest(index):
    distances, places = nearest_of(QUERIES, BANK, index.propose(QUERIES, 30), 3)
    exact = torch.cdist(QUERIES.double(), BANK.double())
    torch.testing.assert_close(distances, exact.gather(1, places), rtol=1e-12, atol=0.0)
    true = exact.topk(3, dim=1, largest=False).values
    assert bool((distances >= true * (1 - 1e-12)).all())
    assert float((distances <= true * (1 + 1e-12)).double().mean()) > 0.7
    assert all(len(set(row)) == 3 for row in places.tolist())


def test_what_is_proposed_depends_on_the_query_alone(index):
    """Not on how many come together, nor on threads, nor on which of two builds is asked."""
    together = index.propose(QUERIES, 12)
    assert torch.equal(torch.cat([index.propose(part, 12) for part in QUERIES.split(7)]), together)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(index.propose(QUERIES, 12), together)
        again = Candidates(
            next(name for name in FAISS if name[6:] in type(index.index).__name__.lower()), BANK
        )
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(again.propose(QUERIES, 12), together)


def test_global_settings_of_faiss_are_put_back():
    before = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    Candidates("faiss_ivf", BANK[:100]).propose(QUERIES, 5)
    assert (faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold) == before


def test_a_query_with_too_few_candidates_is_searched_in_the_whole_bank():
    candidates = torch.tensor([[5, -1, -1], [0, 1, 2]])
    distances, places = nearest_of(BANK[5:7], BANK, candidates, 2)
    torch.testing.assert_close(distances[:1], nearest(BANK[5:6], BANK, 2)[0])
    assert set(places[1].tolist()) < {0, 1, 2}


@pytest.mark.parametrize("name", FAISS)
@pytest.mark.parametrize("count", [1, 2, 40])
def test_a_tiny_bank_is_searched_too(name, count):
    bank = points(count, 3)
    distances, _ = nearest_of(QUERIES, bank, Candidates(name, bank).propose(QUERIES, count), 1)
    torch.testing.assert_close(distances, nearest(QUERIES, bank, 1)[0])


def test_a_copy_shares_the_index(index):
    assert copy.deepcopy(index) is index


def test_an_unknown_index_and_an_absent_faiss_are_named(monkeypatch):
    with pytest.raises(InputError, match="index: got 'annoy', allowed are faiss_hnsw, faiss_ivf"):
        Candidates("annoy", BANK)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"faiss is not installed; pip install 'diffad\[faiss\]'"):
        Candidates("faiss_ivf", BANK)
