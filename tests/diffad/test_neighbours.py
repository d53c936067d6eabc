from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from certify.checks import InputError
from diffad import neighbours
from diffad.neighbours import farthest, k_centre, nearest, pair_distance, random_choice, search_error


def points(count: int, dims: int, seed: int) -> torch.Tensor:
    return torch.rand(count, dims, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("chunks", [(512, 4096), (7, 13), (1, 1)])
def test_nearest_agrees_with_scikit_learn(
    k: int, chunks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", chunks[0])
    monkeypatch.setattr(neighbours, "_BANK_CHUNK", chunks[1])
    queries, bank = points(40, 6, 0), points(101, 6, 1)
    distances, indices = nearest(queries, bank, k)
    wanted, where = (
        NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.double()).kneighbors(queries.double())
    )
    np.testing.assert_allclose(distances, wanted, rtol=1e-9)
    np.testing.assert_array_equal(indices, where)
    assert distances.dtype == torch.float64


def test_a_point_of_the_bank_is_at_distance_zero_exactly() -> None:
    bank = points(50, 30, 0)
    distances, indices = nearest(bank, bank)
    assert not bool(distances.any())
    assert indices[:, 0].tolist() == list(range(50))


def test_duplicates_count_as_often_as_they_occur() -> None:
    bank = points(5, 3, 0).repeat(3, 1)
    distances, indices = nearest(bank[:5], bank, 4)
    assert not bool(distances[:, :3].any())
    assert bool((distances[:, 3] > 0).all())
    assert (indices[:, :3] % 5 == torch.arange(5)[:, None]).all()
    assert all(len(set(row.tolist())) == 4 for row in indices)


@pytest.mark.parametrize("k", [0, 6])
def test_k_outside_the_bank_is_refused(k: int) -> None:
    with pytest.raises(InputError, match="bank of 5"):
        nearest(points(2, 3, 0), points(5, 3, 1), k)


def test_winners_are_not_decided_in_float32() -> None:
    # far from the origin, float32 |q|^2 - 2 q.b + |b|^2 cannot tell these two
    query, offset = torch.full((1, 64), 30.0), torch.zeros(1, 64)
    offset[0, 0] = 2e-5
    bank = torch.cat([query + 2 * offset, query + offset])
    distances, indices = nearest(query, bank)
    assert indices.item() == 1
    assert distances.item() == pytest.approx(float(bank[1, 0].double() - 30.0), rel=1e-12)


@pytest.mark.parametrize("bank_size", [1, 3, 31, 33, 300])
def test_farthest_is_the_directed_hausdorff_distance(bank_size: int) -> None:
    sets, bank = points(8 * 50, 5, 0).view(8, 50, 5), points(bank_size, 5, 1)
    bank[: bank_size // 2] *= 0.2
    winners, near = farthest(sets, bank)
    table = torch.linalg.vector_norm(sets.double()[:, :, None] - bank.double(), dim=3)
    wanted = table.amin(2)
    assert torch.equal(winners, wanted.argmax(1))
    assert torch.equal(near, table.argmin(2)[torch.arange(8), winners])


def test_farthest_with_ties_still_reaches_the_distance() -> None:
    sets = torch.zeros(2, 9, 4)
    sets[1, 4:] = 1.0
    bank = torch.zeros(70, 4)
    bank[3] = 0.25
    winners, near = farthest(sets, bank)
    reached = pair_distance(sets[torch.arange(2), winners], bank[near])
    assert reached.tolist() == [0.0, 1.5]


def test_farthest_leaves_most_of_the_work_out(monkeypatch: pytest.MonkeyPatch) -> None:
    work, search = [], neighbours._search

    def counted(queries: torch.Tensor, bank: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        work.append(len(queries) * len(bank))
        return search(queries, bank, k)

    monkeypatch.setattr(neighbours, "_search", counted)
    sets, bank = points(4 * 400, 3, 0).view(4, 400, 3), points(3000, 3, 1)
    sets[:, 17] = 2.0
    winners, _ = farthest(sets, bank)
    assert winners.tolist() == [17] * 4
    assert sum(work) < 0.1 * 4 * 400 * 3000


def test_search_error_covers_what_the_search_does() -> None:
    queries, bank = 30 + points(200, 100, 0).double(), 30 + points(300, 100, 1).double()
    bank[:200] = queries + 1e-7 * points(200, 100, 2)
    values, indices = neighbours._search(queries, bank, 1)
    searched = 2 * values[:, 0] + queries.square().sum(1)
    exact = (queries - bank[indices[:, 0]]).square().sum(1)
    bound = search_error(100, neighbours.largest_norm(queries), neighbours.largest_norm(bank))
    error = (searched - exact).abs().max()
    assert 0 < error <= bound
    assert bound < 1e-6


def test_distance_zero_has_gradient_zero() -> None:
    left = points(3, 4, 0).requires_grad_()
    pair_distance(left, left.detach()).sum().backward()
    assert left.grad is not None
    assert not bool(left.grad.any())


@pytest.mark.parametrize("size", [1, 2, 10, 60])
def test_k_centre_covers_and_separates(size: int) -> None:
    cloud = points(60, 2, 3)
    chosen = k_centre(cloud, size, seed=0)
    assert len(set(chosen.tolist())) == size
    cover = nearest(cloud, cloud[chosen])[0].max()
    # farthest-first: every point is covered at least as near as the centres lie apart
    apart = torch.pdist(cloud[chosen].double()).min() if size > 1 else torch.tensor(torch.inf)
    assert cover <= apart + 1e-9
    wanted = [int(chosen[0])]
    for _ in range(size - 1):
        wanted.append(int(nearest(cloud, cloud[wanted])[0].argmax()))
    assert chosen.tolist() == wanted


def test_k_centre_beats_random_choice_at_covering() -> None:
    generator = torch.Generator().manual_seed(0)
    cloud = torch.cat([points(500, 2, 0) * 0.1, torch.rand(10, 2, generator=generator) * 5])
    greedy = nearest(cloud, cloud[k_centre(cloud, 15, seed=0)])[0].max()
    random = nearest(cloud, cloud[random_choice(len(cloud), 15, seed=0)])[0].max()
    assert greedy < 0.5 * random


def test_k_centre_takes_copies_only_when_nothing_else_is_left() -> None:
    cloud = points(4, 3, 0).repeat(5, 1)
    chosen = k_centre(cloud, 6, seed=1)
    assert sorted((chosen[:4] % 4).tolist()) == [0, 1, 2, 3]
    assert len(set(chosen.tolist())) == 6
    with pytest.raises(InputError, match="20 points"):
        k_centre(cloud, 21, seed=0)


def test_choices_follow_their_seed() -> None:
    assert torch.equal(random_choice(100, 10, seed=1), random_choice(100, 10, seed=1))
    assert not torch.equal(random_choice(100, 10, seed=1), random_choice(100, 10, seed=2))
    assert sorted(random_choice(7, 20, seed=0).tolist()) == list(range(7))


def test_what_a_graph_holds_in_the_place_of_the_searches_finds_the_same() -> None:
    generator = torch.Generator().manual_seed(3)
    bank, sets = torch.rand(90, 5, generator=generator), torch.rand(4, 30, 5, generator=generator)
    _, found = neighbours._whole_table(sets[0], bank, 3)
    assert torch.equal(found, nearest(sets[0], bank, 3)[1])
    for one, other in zip(neighbours._farthest_at_once(sets, bank), farthest(sets, bank), strict=True):
        assert torch.equal(one, other)
