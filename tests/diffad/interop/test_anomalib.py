"""Models of anomalib: gradients against finite differences, weights from a file, folders."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from certify.checks import InputError
from diffad import load_detector
from diffad.attacks import attack
from diffad.interop import AnomalibDetector
from diffad.interop.anomalib import distances
from diffad.interop.anomalib_models import RECIPES, _update_distances
from diffad.interop.outliers import numpy_seeded

with warnings.catch_warnings():  # it imports from where timm has moved its layers away
    warnings.simplefilter("ignore")
    pytest.importorskip("anomalib.models")

GENERATOR = torch.Generator().manual_seed(0)
NORMALS = 0.4 + 0.2 * torch.rand(8, 1, 8, 8, generator=GENERATOR)
IMAGE = 0.1 + 0.8 * torch.rand(1, 1, 8, 8, generator=GENERATOR)
SMALL: dict[str, dict[str, object]] = {
    "Patchcore": {"backbone": "test_resnet", "layers": "layer1+layer2"},
    "Padim": {"backbone": "test_resnet", "n_features": 10},
    "Stfpm": {"backbone": "test_resnet", "steps": 2},
    "ReverseDistillation": {"steps": 1},
    "Fastflow": {"steps": 1, "flow_steps": 2},
    "Draem": {"steps": 1},
    "EfficientAd": {"steps": 1, "teacher_out_channels": 8},
}


def small(what: str, **options: object) -> AnomalibDetector:
    weights = {"weights": "random"} if RECIPES[what].parts else {}
    return AnomalibDetector(what, {**SMALL[what], **weights, "batch_size": 4, **options})


def slopes(detector: AnomalibDetector, image: Tensor) -> tuple[float, float]:
    """The length of the gradient, and the slope along it by central differences, in float64."""
    detector, image = detector.double(), image.double()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # anomalib multiplies its maps into tensors of that type
    try:
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
        direction, step = gradient / gradient.norm(), 1e-6
        rise = detector.score(image + step * direction) - detector.score(image - step * direction)
    finally:
        torch.set_default_dtype(before)
    return float(gradient.norm()), float(rise) / (2 * step)


@pytest.mark.parametrize(
    "what",
    [
        *("Patchcore", "Padim", "Stfpm"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in list(RECIPES)[3:]),
    ],
)
def test_the_gradient_is_the_slope_and_the_folder_is_whole(what: str, tmp_path: Path) -> None:
    detector = small(what).fit(NORMALS, seed=1)
    detector.save_pretrained(tmp_path)
    loaded = load_detector(tmp_path)
    assert torch.equal(loaded.score(IMAGE), detector.score(IMAGE))
    assert detector.anomaly_map(IMAGE).shape == (1, 8, 8)
    gradient, slope = slopes(detector, IMAGE)
    assert gradient > 0
    assert slope == pytest.approx(gradient, rel=1e-5)


def test_a_no_grad_that_is_left_in_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of PatchCore nothing comes through; of STFPM the student's half does, which looks like a gradient."""
    whole, half = (small(what).fit(NORMALS, seed=1) for what in ("Patchcore", "Stfpm"))
    monkeypatch.setattr("diffad.interop.anomalib.gradients_through", lambda *_: nullcontext())
    with pytest.raises(InputError, match="no gradient in its input"):
        attack(whole, IMAGE, np.array([1]), norm="linf", eps=0.1, steps=2)
    gradient, slope = slopes(half, IMAGE)
    assert abs(slope - gradient) > 0.1 * gradient


def test_source_files_get_their_torch_back() -> None:
    from anomalib.models.image.patchcore import torch_model

    detector = small("Patchcore").fit(NORMALS)
    detector.score(IMAGE.clone().requires_grad_())
    assert torch_model.torch is torch


def test_the_score_is_the_raw_one_of_anomalib() -> None:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    detector = small("Patchcore").fit(NORMALS, seed=1)
    images = torch.cat([NORMALS, IMAGE])
    assert detector.model is not None
    detector.model.euclidean_dist = PatchcoreModel.euclidean_dist  # type: ignore[assignment]
    with torch.no_grad():
        expected = detector.model(detector._inside(images)).pred_score
    detector.model.euclidean_dist = distances  # type: ignore[assignment]
    torch.testing.assert_close(detector.score(images), expected, rtol=1e-3, atol=1e-3)


def test_distances_are_euclidean_with_a_finite_slope_at_zero() -> None:
    x, y = torch.randn(5, 7, generator=GENERATOR), torch.randn(3, 7, generator=GENERATOR)
    torch.testing.assert_close(distances(x, y), torch.cdist(x, y))
    leaf = y.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distances(leaf, y).sum(), leaf)
    assert bool(torch.isfinite(gradient).all())


def test_weights_come_from_a_named_file(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("test_resnet", pretrained=False, num_classes=3)
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    detector = small("Patchcore", weights=str(tmp_path / "weights.safetensors")).fit(NORMALS)
    assert detector.model is not None
    found = detector.model.get_submodule("feature_extractor.feature_extractor").state_dict()
    assert all(torch.equal(value, tensors[name]) for name, value in found.items())
    assert detector.config()["options"]["weights"] == "weights.safetensors"
    del tensors["conv1.0.weight" if "conv1.0.weight" in tensors else "conv1.weight"]
    save_file(tensors, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match="lacks 1 of"):
        small("Patchcore", weights=str(tmp_path / "part.safetensors")).fit(NORMALS)
    (tmp_path / "other.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="is no safetensors file"):
        small("Patchcore", weights=str(tmp_path / "other.safetensors")).fit(NORMALS)


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        (
            "Patchcore",
            {"weights": None},
            "no weights named; give weights=FILE, the safetensors of timm's test_resnet",
        ),
        ("Patchcore", {"weights": "missing.safetensors"}, "'missing.safetensors' is no file"),
        ("Patchcore", {"neighbours": 3}, "unknown options .'neighbours'., allowed are weights, size"),
        ("Patchcore", {"size": 16}, "got size = 16"),
        ("EfficientAd", {"size": 128}, "got size = 128, need a whole number of at least 256"),
        (
            "EfficientAd",
            {"weights": None},
            "no weights named; give weights=FILE, pretrained_teacher_small.pth",
        ),
        (
            "EfficientAd",
            {"penalty": "nowhere"},
            "penalty: 'nowhere' is no folder; name one of natural images",
        ),
        ("Stfpm", {"penalty": "nowhere"}, "unknown options .'penalty'."),
        ("Patchcore", {"sampling_ratio": 0}, "got sampling_ratio = 0"),
        ("Patchcore", {"sampling_ratio": "a"}, "got sampling_ratio = 'a', need a share"),
        ("Patchcore", {"backbone": "no_network"}, "cannot be built"),
        ("Padim", {"n_features": None}, "cannot be built"),
        ("Patchcore", {"sampling_ratio": 1e-9}, "cannot be fitted"),
    ],
)
def test_what_is_missing_or_wrong_is_said(what: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        small(what, **options).fit(NORMALS)


def test_an_unknown_model_is_refused_with_those_known() -> None:
    with pytest.raises(InputError, match="'Winclip', allowed are Patchcore, Padim"):
        load_detector("anomalib:Winclip")


def test_the_coreset_is_that_of_anomalib() -> None:
    sampling = pytest.importorskip("anomalib.models.components.sampling.k_center_greedy")
    rows = torch.rand(200, 12, generator=torch.Generator().manual_seed(0))

    def chosen() -> list[int]:
        torch.manual_seed(0)
        with numpy_seeded(0):  # of the random projection
            return list(sampling.KCenterGreedy(rows, 0.2).select_coreset_idxs())

    with torch.random.fork_rng():
        theirs = chosen()
        with patch.object(sampling.KCenterGreedy, "update_distances", _update_distances):
            assert chosen() == theirs
