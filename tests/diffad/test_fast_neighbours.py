import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from certify.checks import InputError
from diffad import fast_neighbours
from diffad.fast_neighbours import nearest_verified
from diffad.neighbours import nearest


def points(count: int, dims: int, seed: int) -> torch.Tensor:
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("count", "k"), [(10, 1), (10, 10), (700, 3), (5000, 2), (9000, 10)])
def test_the_neighbours_are_those_of_scikit_learn(count, k):
    bank, queries = points(count, 32, 0), points(600, 32, 1)
    distances, indices = nearest_verified(queries, bank, k)
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.double().numpy())
    expected, rows = index.kneighbors(queries.double().numpy())
    torch.testing.assert_close(distances, torch.from_numpy(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(indices, torch.from_numpy(rows))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(1e-4, 1e4), st.floats(0.0, 1e4))
def test_it_agrees_with_double_precision_at_any_scale_and_offset(seed, k, scale, offset):
    """Far from the origin the float32 search cancels: such queries are searched again."""
    bank, queries = offset + scale * points(300, 8, seed), offset + scale * points(20, 8, seed + 1)
    found, _ = nearest_verified(queries, bank, k)
    expected, _ = nearest(queries, bank, k)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0.0)


def test_an_unsettled_query_is_searched_again_and_a_settled_one_is_not(monkeypatch):
    asked = []

    def counted(queries, bank, k):
        asked.append(len(queries))
        return nearest(queries, bank, k)

    monkeypatch.setattr(fast_neighbours, "nearest", counted)
    bank = points(2000, 16, 0)
    nearest_verified(points(50, 16, 1), bank, 2)
    assert asked == []
    equal = torch.cat([bank, bank[:1].expand(40, -1)])  # 41 points at one place: nothing tells them apart
    distances, _ = nearest_verified(torch.cat([bank[:1], points(9, 16, 2)]), equal, 2)
    assert asked == [1]
    assert distances[0].tolist() == [0.0, 0.0]


def test_lowered_products_are_not_trusted(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    monkeypatch.setattr(fast_neighbours, "_propose", lambda *_: pytest.fail("searched in lowered precision"))
    bank = points(500, 4, 0)
    torch.testing.assert_close(nearest_verified(bank[:5], bank)[1][:, 0], torch.arange(5))


@pytest.mark.parametrize("k", [0, 11])
def test_more_neighbours_than_points_are_refused(k):
    with pytest.raises(InputError, match=f"got k = {k} for a bank of 10 points"):
        nearest_verified(points(2, 3, 0), points(10, 3, 1), k)


def test_autocast_does_not_reach_the_search():
    """Near 1 bfloat16 products can't tell these points apart."""
    bank, queries = 1 + 0.01 * points(3000, 64, 0), 1 + 0.01 * points(50, 64, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, indices = nearest_verified(queries, bank, 2)
    torch.testing.assert_close(indices, nearest(queries, bank, 2)[1])


def test_a_precision_that_cannot_be_read_is_not_trusted(monkeypatch):
    def mixed() -> str:
        raise RuntimeError("PyTorch is checking whether allow_tf32_new is enabled")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    bank = points(500, 4, 0)
    torch.testing.assert_close(nearest_verified(bank[:5], bank)[1][:, 0], torch.arange(5))


@pytest.mark.parametrize("scale", [1e-23, 1e-19])
def test_products_that_underflow_are_paid_for(scale):
    bank, queries = scale * points(1000, 16, 0), scale * points(20, 16, 1)
    torch.testing.assert_close(nearest_verified(queries, bank, 2)[1], nearest(queries, bank, 2)[1])


def test_double_precision_stays_double():
    bank = 1 + 1e-9 * points(1000, 8, 0).double()
    torch.testing.assert_close(
        nearest_verified(bank[:20], bank, 3)[0], nearest(bank[:20], bank, 3)[0], rtol=0, atol=0
    )
