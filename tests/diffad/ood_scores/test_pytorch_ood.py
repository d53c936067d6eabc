"""From the same features and logits the same scores as pytorch-ood's, an optional package (diffad[interop])."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from diffad.ood_scores import Mahalanobis, OpenMax, RelativeMahalanobis
from diffad.ood_scores.mahalanobis import squared_distances

theirs = pytest.importorskip("pytorch_ood.detector")

COUNT, CLASSES, DIM = 400, 5, 8


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Theirs keeps means and covariances in the default dtype; in float32 its inverse alone is off by some 1e-4."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return torch.arange(COUNT) % CLASSES


def points(count: int, dim: int, seed: int, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(count, dim, generator=generator, dtype=torch.float64)


def ours(chosen: type[Mahalanobis], features: Tensor, labels: Tensor) -> Mahalanobis:
    """Their ridge of 1e-6 is on a sum over images."""
    detector = chosen(ridge=1e-6 / COUNT)
    detector._fit_gaussians(features, labels, tuple("abcde"))
    return detector


def test_mahalanobis_is_2n_times_theirs(labels: Tensor) -> None:
    features = points(COUNT, DIM, 0) @ points(DIM, DIM, 1) + 3 * points(CLASSES, DIM, 2)[labels]
    tested = points(100, DIM, 3, 4.0)
    found = ours(Mahalanobis, features, labels)
    scores = squared_distances(tested, found.means, found.whitening).amin(1) / (2 * COUNT)
    expected = theirs.Mahalanobis(None).fit_features(features, labels).predict_features(tested)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


def test_relative_mahalanobis_is_n_times_theirs(labels: Tensor) -> None:
    features = points(COUNT, DIM, 0) @ points(DIM, DIM, 1) + 3 * points(CLASSES, DIM, 2)[labels]
    tested = points(100, DIM, 3, 4.0)
    found = ours(RelativeMahalanobis, features, labels)
    assert isinstance(found, RelativeMahalanobis)
    background = squared_distances(tested, found.background_mean, found.background_whitening)
    scores = (squared_distances(tested, found.means, found.whitening) - background).amin(1) / COUNT
    expected = theirs.RMD(None).fit_features(features, labels).predict_features(tested)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("tail_size", "top_classes"), [(25, 10), (10, 3)])
def test_openmax_is_the_logit_of_theirs(labels: Tensor, tail_size: int, top_classes: int) -> None:
    logits = points(COUNT, CLASSES, 0) + 4 * torch.eye(CLASSES, dtype=torch.float64)[labels]
    detector = OpenMax(tail_size=tail_size, top_classes=top_classes)
    detector._fit_laws(logits, labels)
    # with images of every class: theirs measures no distance to a class that no image of the batch is given to
    tested = torch.cat([points(100, CLASSES, 1, 4.0), logits[:50]])
    found = torch.sigmoid(detector.unknown_log_odds(tested))
    other = theirs.OpenMax(None, tailsize=tail_size, alpha=top_classes).fit_logits(logits, labels)
    assert 0.2 < float((found > 0.5).double().mean()) < 0.8
    torch.testing.assert_close(found, other.predict_logits(tested), rtol=1e-5, atol=1e-5)
