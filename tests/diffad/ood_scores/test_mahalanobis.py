from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from diffad.attacks.summaries import soft_minimum
from diffad.backbones import Backbone
from diffad.ood_scores import Mahalanobis, RelativeMahalanobis
from diffad.ood_scores.mahalanobis import squared_distances, whitening

TRAIN, TEST = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0)).split([60, 20])
NUMBERS = np.arange(60) % 3
LABELS = ["abc"[k] for k in NUMBERS]


@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([1e-6, 1e-2, 1.0]))
@settings(max_examples=25, deadline=None)
def test_distances_are_those_of_scipy(seed: int, dim: int, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    centred, queries, means = (rng.normal(size=(count, dim)) for count in (40, 7, 3))
    inverse = np.linalg.inv(centred.T @ centred / 40 + ridge * np.eye(dim))
    expected = cdist(queries, means, "mahalanobis", VI=inverse) ** 2
    found = squared_distances(
        *map(torch.from_numpy, (queries, means)), whitening(torch.from_numpy(centred), ridge)
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_scores_use_class_means_and_one_covariance(backbone: Backbone) -> None:
    train, test = (backbone.features(images).double().numpy() for images in (TRAIN, TEST))
    means = np.stack([train[k == NUMBERS].mean(0) for k in range(3)])
    ridge = 1e-3 * np.eye(train.shape[1])

    def distances(centres: np.ndarray, centred: np.ndarray) -> np.ndarray:
        inverse = np.linalg.inv(centred.T @ centred / len(centred) + ridge)
        return cdist(test, centres, "mahalanobis", VI=inverse) ** 2

    plain = distances(means, train - means[NUMBERS])
    background = distances(train.mean(0, keepdims=True), train - train.mean(0))
    for chosen, expected in (
        (Mahalanobis, plain.min(1)),
        (RelativeMahalanobis, (plain - background).min(1)),
    ):
        detector = chosen.from_backbone(backbone, ridge=1e-3).fit_labelled(TRAIN, LABELS)
        np.testing.assert_allclose(detector.score_array(TEST), expected, rtol=1e-4, atol=1e-4)


def test_a_feature_that_never_varies_counts_by_the_ridge() -> None:
    centred = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    found = squared_distances(
        torch.tensor([[0.0, 2.0]]).double(), torch.zeros(1, 2).double(), whitening(centred, 1e-2)
    )
    torch.testing.assert_close(found, torch.tensor([[400.0]], dtype=torch.float64))


def test_the_soft_minimum_over_classes_does_not_harden_where_a_relative_score_crosses_0(
    backbone: Backbone,
) -> None:
    """Its temperature is a share of a distance, which is never near 0; a difference of distances may be."""
    plain, relative = (
        chosen.from_backbone(backbone, ridge=1e-3).fit_labelled(TRAIN, LABELS)
        for chosen in (Mahalanobis, RelativeMahalanobis)
    )
    assert isinstance(relative, RelativeMahalanobis)
    features = backbone.features(TEST).double()
    background = squared_distances(features, relative.background_mean, relative.background_whitening)[:, 0]
    expected = soft_minimum(plain.class_distances(TEST)) - background
    found = relative.surrogates()["soft_classes"](TEST)
    torch.testing.assert_close(found, expected.to(TEST), rtol=1e-4, atol=1e-4)
    assert bool((found >= relative.score(TEST) - 1e-4).all())
