"""Outlier detectors of scikit-learn and PyOD: against the libraries themselves, and folders without pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from certify.checks import InputError
from diffad import load_detector
from diffad.backbones import Backbone, ResNet
from diffad.interop import PyODDetector, SklearnDetector
from diffad.interop.outliers import ONE_BY_ONE, PYOD, SKLEARN, numpy_seeded

GENERATOR = torch.Generator().manual_seed(0)
NORMALS = 0.4 + 0.2 * torch.rand(40, 1, 3, 3, generator=GENERATOR)
TEST = torch.rand(10, 1, 3, 3, generator=GENERATOR)
OUTLIERS = torch.where(torch.rand(20, 1, 3, 3, generator=GENERATOR) > 0.5, 1.0, 0.0)
SMALL = {"IsolationForest": {"n_estimators": 20}, "IForest": {"n_estimators": 20}, "GMM": {"n_components": 1}}


def rows(images: torch.Tensor) -> np.ndarray:
    return images.flatten(1).double().numpy()


def test_scores_are_those_of_the_library_with_the_sign_turned() -> None:
    forest = IsolationForest(n_estimators=20, random_state=7).fit(rows(NORMALS))
    detector = SklearnDetector("IsolationForest", {"n_estimators": 20}).fit(NORMALS, seed=7)
    np.testing.assert_allclose(detector.score_array(TEST), -forest.score_samples(rows(TEST)), rtol=1e-6)
    factor = LocalOutlierFactor(novelty=True, n_neighbors=5).fit(rows(NORMALS))
    detector = SklearnDetector("LocalOutlierFactor", {"n_neighbors": 5}).fit(NORMALS)
    np.testing.assert_allclose(detector.score_array(TEST), -factor.score_samples(rows(TEST)), rtol=1e-6)


@pytest.mark.parametrize("what", SKLEARN)
def test_every_one_of_scikit_learn_ranks_outliers_and_comes_back(what: str, tmp_path: Path) -> None:
    detector = SklearnDetector(what, SMALL.get(what)).fit(NORMALS[:30], calibration=NORMALS[10:], seed=3)
    assert detector.score_array(OUTLIERS).min() > detector.score_array(NORMALS[30:]).max()
    detector.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "config.json",
        "model.safetensors",
        "README.md",
    }
    loaded = load_detector(tmp_path / "saved")
    assert torch.equal(loaded.score(TEST), detector.score(TEST))
    assert loaded.threshold_ == detector.threshold_


@pytest.mark.parametrize("what", PYOD)
def test_every_one_of_pyod_ranks_outliers_and_comes_back(what: str, tmp_path: Path) -> None:
    module = pytest.importorskip(f"pyod.models.{PYOD[what]}")
    detector = PyODDetector(what, SMALL.get(what)).fit(NORMALS, seed=3)
    assert detector.score_array(OUTLIERS).mean() > detector.score_array(NORMALS).mean()
    own = getattr(module, what)
    seeded = {"random_state": 3} if "random_state" in own().get_params() else {}
    with numpy_seeded(3):
        itself = own(**seeded, **SMALL.get(what, {})).fit(rows(NORMALS))
    if what not in ONE_BY_ONE:
        np.testing.assert_allclose(
            detector.score_array(TEST), itself.decision_function(rows(TEST)), rtol=1e-5
        )
    detector.save_pretrained(tmp_path / "saved")
    assert torch.equal(load_detector(tmp_path / "saved").score(TEST), detector.score(TEST))


def test_images_that_are_ranked_among_each_other_are_scored_one_by_one() -> None:
    pytest.importorskip("pyod.models.ecod")
    detector = PyODDetector("ECOD").fit(NORMALS)
    assert torch.equal(detector.score(TEST)[3:5], detector.score(TEST[3:5]))


def test_a_refit_that_gives_other_scores_is_refused(tmp_path: Path) -> None:
    detector = SklearnDetector("IsolationForest", {"n_estimators": 20}).fit(NORMALS)
    detector.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["rows"] = 0.9 * tensors["rows"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="no longer gives the scores"):
        load_detector(tmp_path)


def test_features_of_a_backbone_travel_with_the_folder(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResNet(width=4, blocks=(1, 1), in_channels=1)
    arguments = {"width": 4, "blocks": [1, 1], "in_channels": 1}
    backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8)
    backbone.save_pretrained(tmp_path / "backbone")
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    detector = load_detector(f"sklearn:OneClassSVM,nu=0.2,backbone={tmp_path / 'backbone'}").fit(images)
    assert detector.score_name == "OneClassSVM on features"
    assert detector.rows.shape == (20, 8)
    detector.save_pretrained(tmp_path / "saved")
    assert torch.equal(load_detector(tmp_path / "saved").score(images), detector.score(images))
    with pytest.raises(InputError, match="has no backbone"):
        SklearnDetector("OneClassSVM", features="backbone").fit(images)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(InputError, match="without novelty"):
        SklearnDetector("LocalOutlierFactor", {"novelty": False}).fit(NORMALS)
    with pytest.raises(InputError, match="'Forest', allowed are IsolationForest"):
        SklearnDetector("Forest")
    with pytest.raises(InputError, match=r"unknown arguments \['trees'\], allowed are"):
        SklearnDetector("IsolationForest", {"trees": 3}).fit(NORMALS)
    with pytest.raises(InputError, match="n_estimators"):
        SklearnDetector("IsolationForest", {"n_estimators": -3}).fit(NORMALS)


def test_the_seed_of_the_fit_decides_and_the_global_one_does_not() -> None:
    first, again, other = (
        SklearnDetector("IsolationForest", {"n_estimators": 5}).fit(NORMALS, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(first.score(TEST), again.score(TEST))
    assert not torch.equal(first.score(TEST), other.score(TEST))
