from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import decomposition

from certify.checks import InputError
from diffad import load_detector
from diffad.baselines.pca import PCA

GENERATOR = torch.Generator().manual_seed(0)
FACTORS = torch.randn(3, 20, generator=GENERATOR)
TRAIN = torch.sigmoid(torch.randn(40, 3, generator=GENERATOR) @ FACTORS).view(40, 1, 4, 5)
IMAGES = torch.rand(6, 1, 4, 5, generator=GENERATOR)


@pytest.mark.parametrize("count", [1, 3, 19])
def test_score_is_the_residual_of_scikit_learn(count: int) -> None:
    reference = decomposition.PCA(count, svd_solver="full").fit(TRAIN.flatten(1).double().numpy())
    points = IMAGES.flatten(1).double().numpy()
    wanted = np.linalg.norm(points - reference.inverse_transform(reference.transform(points)), axis=1)
    detector = PCA(n_components=count).fit(TRAIN)
    np.testing.assert_allclose(detector.score(IMAGES), wanted, rtol=1e-5)
    maps = detector.anomaly_map(IMAGES)
    torch.testing.assert_close(maps.flatten(1).norm(dim=1), detector.score(IMAGES))


def test_explained_variance_chooses_the_fewest_components() -> None:
    share = decomposition.PCA().fit(TRAIN.flatten(1).double().numpy()).explained_variance_ratio_.cumsum()
    for wanted in (0.5, 0.9, 0.99):
        count = len(PCA(explained_variance=wanted).fit(TRAIN).components)
        assert share[count - 1] >= wanted
        assert count == 1 or share[count - 2] < wanted


def test_interval_holds_the_residual_of_rational_arithmetic() -> None:
    detector = PCA(n_components=3).fit(TRAIN)
    # on the plane of the components, the residual is the rounding of float32 beside long coordinates
    weights = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()
    plane = (detector.mean + 0.1 * weights @ detector.components).clamp(0, 1).float().view(8, 1, 4, 5)
    images = torch.cat([IMAGES[:3], TRAIN[:1], detector.mean.view(1, 1, 4, 5).float(), plane])
    lower, upper = detector.score_interval(images)
    basis = [[Fraction(v) for v in row] for row in detector.components.tolist()]
    mean = [Fraction(v) for v in detector.mean[0].tolist()]
    for image, low, high in zip(images.flatten(1).tolist(), lower, upper, strict=True):
        residual = centred = [Fraction(v) - m for v, m in zip(image, mean, strict=True)]
        for row in basis:
            weight = sum((a * b for a, b in zip(row, centred, strict=True)), Fraction(0))
            residual = [r - weight * a for r, a in zip(residual, row, strict=True)]
        square = sum((r * r for r in residual), Fraction(0))
        assert Fraction(low) ** 2 <= square <= Fraction(high) ** 2


def test_the_map_has_norm_one_for_the_stored_components() -> None:
    vectors = PCA(n_components=5).fit(TRAIN).components.numpy().T
    assert np.linalg.norm(np.eye(20) - vectors @ vectors.T, 2) <= 1 + 1e-12
    assert np.linalg.norm(vectors, 2) ** 2 <= 2


def test_a_folder_of_longer_components_is_refused(tmp_path: Path) -> None:
    detector = PCA(n_components=3).fit(TRAIN)
    components = detector.components
    for scale in (1.3, -1.0):  # I - V V^T still has the norm 1
        detector.components = scale * components
        detector.save_pretrained(tmp_path)
        assert load_detector(tmp_path).lipschitz == load_detector(tmp_path).map_lipschitz == 1.0
    detector.components = 5 * components
    detector.save_pretrained(tmp_path)
    with pytest.raises(InputError) as error:
        load_detector(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: components has a spectral norm of up to 5, need at most 1.4 for the Lipschitz constant of pca; "
        "fit it again"
    )


def test_an_image_of_one_pixel_leaves_no_component_and_loads(tmp_path: Path) -> None:
    detector = PCA().fit(torch.rand(5, 1, 1, 1))
    assert len(detector.components) == 0
    detector.save_pretrained(tmp_path)
    assert load_detector(tmp_path).fingerprint() == detector.fingerprint()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"n_components": 0}, "at least 1"), ({"explained_variance": 1.0}, "between 0 and 1")],
)
def test_bad_options_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PCA(**options)


def test_too_many_components_are_refused() -> None:
    with pytest.raises(InputError, match="need at least 40"):
        PCA(n_components=39).fit(TRAIN[:39])
    with pytest.raises(InputError, match="fewer than pixels"):
        PCA(n_components=20).fit(TRAIN)


def test_the_fingerprint_is_that_of_one_thread() -> None:
    images = torch.rand(60, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.add(PCA(10).fit(images).fingerprint())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
