import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from diffad.fast_neighbours import nearest_verified
from diffad.zarnd.measures import copies, coreset_change, index_recall, others


def points(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def summed(distances: Tensor) -> Tensor:
    return distances.sum(1)


def test_copies_are_counted_beyond_the_first():
    images = torch.rand(4, 3, 2, 2)
    assert copies(images) == 0
    assert copies(images[[0, 1, 1, 2, 1]]) == 2
    assert copies(images.flip(0).transpose(2, 3)[[0, 0]]) == 1


def test_the_change_of_a_coreset_is_that_of_the_normals_left_out():
    features, kept = points(40), torch.arange(0, 40, 4)
    found = coreset_change(features, kept, 2, summed, seed=0)
    before, after = [], []
    for place in set(range(40)) - set(kept.tolist()):
        rest = [other for other in range(40) if other != place]
        for bank, scores in ((features[rest], before), (features[kept], after)):
            index = NearestNeighbors(n_neighbors=2).fit(bank.double().numpy())
            scores.append(index.kneighbors(features[place : place + 1].double().numpy())[0].sum())
    change = torch.tensor(after) - torch.tensor(before)
    assert found["coreset_change_mean"] == pytest.approx(float(change.mean()), rel=1e-9)
    assert found["coreset_change_max"] == pytest.approx(float(change.max()), rel=1e-9)
    assert found["score_mean"] == pytest.approx(sum(before) / 30, rel=1e-9)
    assert float(change.min()) >= 0


def test_a_copy_left_out_has_the_kept_one_as_its_nearest_other():
    features = points(10).repeat(2, 1)
    found = coreset_change(features, torch.arange(10), 1, summed, seed=0)
    assert found == {"coreset_change_mean": 0.0, "coreset_change_max": 0.0, "score_mean": 0.0}


def test_an_exact_search_finds_everything():
    bank = torch.cat([points(60), points(3)])
    found = index_recall(bank, lambda queries, k: nearest_verified(queries, bank, k), 3, summed, seed=0)
    assert found == {"index_recall": 1.0, "index_change_mean": 0.0, "index_change_max": 0.0}


@pytest.mark.parametrize("finds_itself", [True, False])
def test_a_search_of_the_half_bank_misses_what_lies_in_the_other(finds_itself):
    bank = points(80)
    half = torch.arange(0, 80, 2)

    def search(queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        distances, places = nearest_verified(queries, bank[half], k if finds_itself else k + 1)
        skip = 0 if finds_itself else 1
        return distances[:, skip:][:, :k], half[places][:, skip:][:, :k]

    found = index_recall(bank, search, 2, summed, seed=0)
    true = others(bank, torch.arange(80), 2)
    assert 0.2 < found["index_recall"] < 0.8
    assert 0 < found["index_change_mean"] < found["index_change_max"]
    assert found["index_change_max"] < 5 * float(true.sum(1).mean())
