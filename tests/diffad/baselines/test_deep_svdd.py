"""Deep SVDD: its objectives in closed form, why it can't collapse, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score

from certify.checks import InputError
from diffad import load_detector
from diffad.baselines.deep_svdd import LAYERS, DeepSVDD, away_from_zero, objective
from diffad.cli import main
from diffad.data import DataSplit, load_data


@pytest.fixture(scope="module")
def split() -> DataSplit:
    return load_data("digits", normal_class="8", resolution=8, limit=30)


@pytest.fixture(scope="module", params=[0.0, 0.1])
def detector(request: pytest.FixtureRequest, split: DataSplit) -> DeepSVDD:
    return DeepSVDD(nu=request.param, steps=150).fit(split.train.images, seed=3)


def test_it_tells_an_eight_from_other_digits(detector: DeepSVDD, split: DataSplit) -> None:
    assert roc_auc_score(split.test.labels.numpy(), detector.score_array(split.test.images)) > 0.9


def test_the_network_has_no_bias_and_no_bounded_activation(detector: DeepSVDD, split: DataSplit) -> None:
    """Then and only then is it homogeneous; a bias or a saturating unit would let it answer c to everything."""
    images = split.test.images
    for factor in (0.0, 0.25, 100.0):
        torch.testing.assert_close(
            detector.embed(factor * images), factor * detector.embed(images), rtol=1e-4, atol=1e-4 * factor
        )
    assert {name for name, _ in detector.named_buffers()} == {
        "centre",
        *(f"weight_{layer}" for layer in range(LAYERS)),
    }


def test_it_has_not_collapsed(detector: DeepSVDD, split: DataSplit) -> None:
    """Normals lie together at the centre, other images do not: black is exactly |c|^2 away, noise farther still."""
    normals = split.train.images
    size = float(detector.centre.square().sum())
    assert float(detector.score(normals).mean()) < 0.1 * size
    assert float(detector.score(torch.zeros_like(normals[:1]))) == pytest.approx(size, rel=1e-6)
    noise = torch.rand(50, *normals.shape[1:], generator=torch.Generator().manual_seed(0))
    together, apart = (detector.embed(images).var(0).sum() for images in (normals, noise))
    assert float(apart) > 3 * float(together) > 0
    assert float(detector.score(noise).mean()) > 5 * float(detector.score(normals).mean())


def test_the_centre_is_the_first_mean_and_no_coordinate_of_it_is_near_zero(split: DataSplit) -> None:
    normals = split.train.images
    still = DeepSVDD(steps=1, learning_rate=1e-12).fit(normals, seed=3)
    trained = DeepSVDD(steps=20).fit(normals, seed=3)
    assert torch.equal(still.centre, trained.centre)
    torch.testing.assert_close(still.centre, away_from_zero(still.embed(normals).mean(0)))
    given = torch.tensor([-2.0, -0.03, 0.0, 0.05, 0.1, 3.0])
    assert away_from_zero(given).tolist() == pytest.approx([-2.0, -0.1, 0.1, 0.1, 0.1, 3.0])


def test_the_objectives_are_those_of_the_paper() -> None:
    distances = torch.rand(101, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(objective(distances, 0.0)) == pytest.approx(float(distances.mean()))
    for nu in (0.05, 0.3):
        # equation 3 is convex in R^2; the quantile is where it is least
        least = minimize_scalar(
            lambda square, nu=nu: square + float((distances - square).clamp(min=0).mean()) / nu,
            bounds=(0.0, 1.0),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert float(objective(distances, nu)) == pytest.approx(least.fun, rel=2e-3)
        assert float(objective(distances, nu)) >= least.fun - 1e-9


def test_weight_decay_shrinks_the_weights(split: DataSplit) -> None:
    plain, decayed = (
        sum(float(getattr(made, f"weight_{layer}").square().sum()) for layer in range(LAYERS))
        for made in (DeepSVDD(steps=40, weight_decay=decay).fit(split.train.images) for decay in (0.0, 1.0))
    )
    assert decayed < plain


def test_the_seed_decides(split: DataSplit) -> None:
    one, same, other = (
        DeepSVDD(steps=3, batch_size=10).fit(split.train.images, seed=seed) for seed in (1, 1, 2)
    )
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()


def test_what_cannot_be_trained_is_refused(split: DataSplit) -> None:
    for bad in ({"width": 0}, {"steps": 1.5}, {"learning_rate": 0}, {"nu": 1.0}, {"weight_decay": -1.0}):
        with pytest.raises((InputError, TypeCheckError), match=next(iter(bad))):
            DeepSVDD(**bad)
    with pytest.raises(InputError, match="need at least 4 x 4"):
        DeepSVDD().fit(split.train.images[..., :3])
    with pytest.raises(InputError, match="lower learning_rate"):
        DeepSVDD(steps=20, learning_rate=1e30).fit(split.train.images)
    with pytest.raises(InputError, match="lower learning_rate"):  # the loss before the only step is finite
        DeepSVDD(steps=1, learning_rate=1e30).fit(split.train.images)


def test_it_is_fitted_from_the_shell(tmp_path: Path) -> None:
    words = ["--data", "digits", "--normal_class", "8", "--resolution", "8", "--nu", "0.1"]
    assert main(["fit", "--detector", "deep_svdd", *words, "--output_dir", str(tmp_path / "svdd")]) == 0
    loaded = load_detector(tmp_path / "svdd")
    assert isinstance(loaded, DeepSVDD)
    assert loaded.score_name == "soft boundary 0.1"
