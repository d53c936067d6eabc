from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from certify.checks import InputError
from diffad.cobra.mixture import Mixture


def points(count: int, size: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=torch.Generator().manual_seed(99))
    clusters = 3.0 * torch.randint(0, 3, (count, 1), generator=generator)
    return torch.randn(count, size, generator=generator) @ mixing + clusters


@pytest.mark.parametrize("components", [1, 3, 5])
def test_log_densities_are_those_of_scikit_learn(components: int):
    train, others = points(300), points(50, seed=1)
    mixture = Mixture.fit(train, points(80, seed=2), components=components, seed=3)
    reference = GaussianMixture(components, reg_covar=1e-4, max_iter=500, random_state=3)
    reference.fit(train.double().numpy())
    for new in (train, others, others + 20):
        wanted = reference.score_samples(new.double().numpy())
        assert mixture.log_prob(new).numpy() == pytest.approx(wanted, abs=1e-5, rel=1e-9)


def test_principal_directions_first_where_asked_for():
    train, others = points(300, size=10), points(50, size=10, seed=1)
    mixture = Mixture.fit(train, others, pca=4)
    reduction = PCA(4, svd_solver="full").fit(train.double().numpy())
    reference = GaussianMixture(1, reg_covar=1e-4).fit(reduction.transform(train.double().numpy()))
    wanted = reference.score_samples(reduction.transform(others.double().numpy()))
    assert mixture.log_prob(others).numpy() == pytest.approx(wanted, abs=1e-5)
    assert Mixture.fit(train, others, pca=10).directions.numel() == 0


def test_p_values_count_the_held_out_normals_that_are_no_more_likely():
    held_out = points(40, seed=2)
    mixture = Mixture.fit(points(300), held_out)
    new = torch.cat([points(20, seed=1), held_out[:5], points(3) + 100])
    below = (mixture.log_prob(held_out)[None] <= mixture.log_prob(new)[:, None]).sum(1)
    assert torch.equal(mixture.p_values(new), (1 + below.double()) / 41)
    assert mixture.p_values(points(3) + 100).tolist() == [1 / 41] * 3
    assert torch.equal(mixture.held_out, mixture.held_out.sort().values)


def test_p_values_of_new_normals_are_uniform():
    mixture = Mixture.fit(points(500), points(1000, seed=2))
    p = mixture.p_values(points(4000, seed=1))
    for level in (0.02, 0.05, 0.2):
        # two standard errors each of 1000 held-out normals and of 4000 new ones
        slack = 2 * (level * (1 - level)) ** 0.5 * (1000**-0.5 + 4000**-0.5)
        assert float((p < level).double().mean()) == pytest.approx(level, abs=slack)


@given(log_probs=st.lists(st.floats(-5, 5), min_size=1, max_size=30), new=st.floats(-6, 6))
@settings(max_examples=50, deadline=None)
def test_p_values_lie_in_their_range_and_grow_with_the_likelihood(log_probs: list[float], new: float):
    mixture = Mixture.fit(torch.randn(9, 1, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 1))
    mixture.held_out = torch.tensor(log_probs, dtype=torch.float64).sort().values
    p = mixture.p_values(torch.linspace(-8, 8, 21)[:, None] + 0.1 * new)
    assert 1 / (len(log_probs) + 1) <= float(p.min()) <= float(p.max()) <= 1
    order = mixture.log_prob(torch.linspace(-8, 8, 21)[:, None] + 0.1 * new).argsort()
    assert bool((p[order].diff() >= 0).all())


def test_tensors_hold_all_there_is():
    mixture = Mixture.fit(points(300, size=10), points(40, size=10, seed=2), components=2, pca=4)
    again = Mixture()
    for name, tensor in load(save(dict(mixture.state_dict()))).items():
        setattr(again, name, tensor)
    new = points(30, size=10, seed=1)
    assert torch.equal(mixture.log_prob(new), again.log_prob(new))
    assert torch.equal(mixture.p_values(new), again.p_values(new))


def test_fitting_draws_from_no_global_generator():
    before = (torch.random.get_rng_state(), np.random.get_state()[1].copy())  # noqa: NPY002
    first, second = (Mixture.fit(points(60), points(9), components=3, seed=5) for _ in range(2))
    assert torch.equal(first.means, second.means)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((points(1), points(5)), {}, "mixture: got 1 embeddings and 5 held-out"),
        ((points(9), points(5)), {"components": 5}, "for 5 components"),
        ((points(9), points(5)[:0]), {}, "and 0 held-out"),
        ((points(9) * torch.inf, points(5)), {}, "NaN or infinity"),
        ((points(9), points(5)), {"reg_covar": 0.0}, "reg_covar: got 0.0"),
        ((points(9), points(5)), {"pca": 0}, "components, pca: got 1, 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments: tuple, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        Mixture.fit(*arguments, **options)


def test_an_unfitted_mixture_says_so():
    with pytest.raises(InputError, match="is not fitted"):
        Mixture().p_values(points(2))
