"""Detectors of pytorch-ood: against the library itself, gradients against finite differences, folders."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from certify.checks import InputError
from diffad import load_detector
from diffad.backbones import Backbone, ResNet
from diffad.interop import PytorchOODDetector
from diffad.interop.pytorch_ood import FEATURES, KINDS, LOGITS, Head, default_dtype

CLASSES, DIM = 3, 8
GENERATOR = torch.Generator().manual_seed(0)
NORMALS = torch.rand(60, 1, 1, 1, generator=GENERATOR) * torch.rand(60, 1, 8, 8, generator=GENERATOR)
IMAGES = 0.1 + 0.8 * torch.rand(5, 1, 8, 8, generator=GENERATOR)
OPTIONS: dict[str, dict[str, Any]] = {"ViM": {"d": 3}, "DICE": {"p": 0.5}, "KNN": {"k": 3}}
WITH_GRADIENT = [what for what, kind in KINDS.items() if kind.gradient]


@pytest.fixture
def theirs() -> Any:
    return pytest.importorskip("pytorch_ood.detector")


def classifier(classes: int = CLASSES) -> Backbone:
    """Nobody trained it; its logits are spread so that the normals are of every class."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = ResNet(width=4, blocks=(1, 1), classes=classes, in_channels=1)
    arguments = {"width": 4, "blocks": [1, 1], "classes": classes, "in_channels": 1}
    backbone = Backbone(network, arch="resnet", arguments=arguments, resolution=8)
    if classes > 1:
        logits = backbone.logits(NORMALS)
        network.fc.weight /= logits.std(0)[:, None]
        network.fc.bias -= backbone.logits(NORMALS).mean(0)
    return backbone


@cache
def fitted(what: str) -> PytorchOODDetector:
    return PytorchOODDetector.from_backbone(classifier(), what, OPTIONS.get(what)).fit(NORMALS, seed=1)


def test_the_table_holds_what_pytorch_ood_has(theirs: Any) -> None:
    for what, kind in KINDS.items():
        assert hasattr(getattr(theirs, what), f"predict_{kind.reads}"), what
        assert kind.fitted or not getattr(theirs, what).requires_fit, what


def itself(theirs: Any, what: str, backbone: Backbone, normals: Tensor) -> Any:
    """The detector as a user of pytorch-ood builds and fits it: from a network, a loader and labels."""
    head = Head.of(backbone, what)

    def pooled(images: Tensor) -> Tensor:
        return backbone.features(images)[:, :, None, None]

    parts = {"w": head.weight, "b": head.bias, "head": head}
    wanted = {
        "ViM": ("w", "b"),
        "DICE": ("w", "b"),
        **dict.fromkeys(("fDBD", "NCI", "NNGuide", "SHE", "ReAct", "VRA", "ASH", "SCALE"), ("head",)),
    }
    network = {LOGITS: backbone.logits, FEATURES: backbone.features}.get(KINDS[what].reads, pooled)
    arguments = {name: parts[name] for name in wanted.get(what, ())}
    made = getattr(theirs, what)(network, **arguments, **OPTIONS.get(what, {})).to("cpu")
    labels = backbone.logits(normals).argmax(1)
    return made.fit(DataLoader(TensorDataset(normals, labels), batch_size=16))


@pytest.mark.parametrize("what", KINDS)
def test_scores_are_those_of_the_library(theirs: Any, what: str) -> None:
    detector = fitted(what)
    dtype = torch.float32 if KINDS[what].single else torch.float64
    backbone = classifier().to(dtype)
    with default_dtype(dtype), torch.no_grad():
        expected = itself(theirs, what, backbone, NORMALS.to(dtype)).predict(IMAGES.to(dtype))
    torch.testing.assert_close(detector.score(IMAGES).double(), expected.double(), rtol=1e-4, atol=1e-5)


def slopes(detector: PytorchOODDetector) -> tuple[Tensor, Tensor]:
    """The length of each image's gradient, and the slope along it by central differences."""
    leaf = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
    lengths = gradient.flatten(1).norm(dim=1)
    moved = 1e-3 * gradient / lengths[:, None, None, None]
    return lengths, (detector.score(IMAGES + moved) - detector.score(IMAGES - moved)) / 2e-3


@pytest.mark.parametrize("what", WITH_GRADIENT)
def test_the_gradient_is_the_slope(theirs: Any, what: str) -> None:
    lengths, slope = slopes(fitted(what))
    assert bool((lengths > 0).all())
    torch.testing.assert_close(slope, lengths, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("what", ["Mahalanobis", "ViM", "ReAct"])
def test_a_no_grad_that_is_left_in_is_noticed(
    theirs: Any, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = fitted(what)
    monkeypatch.setattr("diffad.interop.pytorch_ood.without_decorators", lambda function: function)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slopes(detector)


@pytest.mark.parametrize("what", ["Mahalanobis", "ViM", "GMM"])
def test_a_detach_that_is_left_in_is_noticed(theirs: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = fitted(what)
    monkeypatch.setattr("diffad.interop.pytorch_ood.attached", nullcontext)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slopes(detector)


@pytest.mark.parametrize("what", KINDS)
def test_the_folder_is_whole_and_holds_no_pickle(theirs: Any, what: str, tmp_path: Path) -> None:
    detector = fitted(what)
    detector.save_pretrained(tmp_path)
    assert not {path.suffix for path in tmp_path.rglob("*") if path.is_file()} - {
        ".json",
        ".safetensors",
        ".md",
    }
    loaded = load_detector(tmp_path)
    assert torch.equal(loaded.score(IMAGES), detector.score(IMAGES))
    assert loaded.fingerprint() == detector.fingerprint()
    assert type(detector.score(IMAGES)) is Tensor


def test_from_the_shell_a_folder_names_the_network(theirs: Any, tmp_path: Path) -> None:
    classifier().save_pretrained(tmp_path / "classifier")
    detector = load_detector(f"pytorch_ood:KNN,k=3,backbone={tmp_path / 'classifier'}")
    assert isinstance(detector, PytorchOODDetector)
    assert torch.equal(detector.fit(NORMALS).score(IMAGES), fitted("KNN").score(IMAGES))
    assert not detector.has_gradient


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("ViM", {}, "needs d=VALUE"),
        ("ViM", {"d": 3, "e": 4}, r"unknown arguments \['e'\], allowed are d"),
        ("MaxLogit", {"t": 2}, "allowed are none"),
        ("KNN", {"k": 100}, "cannot be fitted .ValueError: k=100 exceeds"),
        ("ReAct", {"percentile": 3}, "cannot be fitted"),
    ],
)
def test_what_cannot_be_built_is_said(theirs: Any, what: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        PytorchOODDetector.from_backbone(classifier(), what, options).fit(NORMALS)
    assert "\n" not in str(raised.value)


def test_what_is_no_detector_or_has_no_network_is_refused() -> None:
    with pytest.raises(InputError, match="'ODIN', allowed are MaxSoftmax"):
        load_detector("pytorch_ood:ODIN,backbone=nowhere")
    with pytest.raises(InputError, match="names no network; give backbone=FOLDER"):
        load_detector("pytorch_ood:EnergyBased")
    with pytest.raises(InputError, match="has no backbone"):
        PytorchOODDetector("EnergyBased").fit(NORMALS)
    with pytest.raises(InputError, match="has 0 logits, need at least 2"):
        PytorchOODDetector.from_backbone(classifier(0), "EnergyBased")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_ood.detector", None)  # as if it was not there
    with pytest.raises(InputError, match=r"pip install 'diffad\[interop\]'"):
        PytorchOODDetector.from_backbone(classifier(), "EnergyBased").fit(NORMALS)


def test_given_classes_take_the_place_of_those_that_the_network_sees(theirs: Any) -> None:
    """Class means in closed form: one class given to all images is one mean."""
    backbone = classifier()
    names = ["b" if place % 2 else "a" for place in range(len(NORMALS))]
    for classes in (["a"] * len(NORMALS), names):
        detector = PytorchOODDetector.from_backbone(classifier(), "Mahalanobis")
        detector.fit_labelled(NORMALS, classes)
        assert detector.fit_info["labels_given"] == 1
        features = backbone.features(NORMALS).double()
        means = torch.stack([features[[c == name for c in classes]].mean(0) for name in sorted(set(classes))])
        torch.testing.assert_close(detector._theirs.mu.double(), means, rtol=1e-4, atol=1e-5)
    seen = PytorchOODDetector.from_backbone(classifier(), "Mahalanobis").fit(NORMALS)
    assert seen.fit_info["labels_given"] == 0
    assert torch.equal(seen.labels, backbone.logits(NORMALS).argmax(1))


def test_classes_that_do_not_fit_are_refused() -> None:
    detector = PytorchOODDetector.from_backbone(classifier(), "SHE")
    with pytest.raises(InputError, match="got 2 classes for 60 images"):
        detector.fit_labelled(NORMALS, ["0", "1"])
    with pytest.raises(InputError, match=r"SHE: compares with logits.*class 7; the network knows 0, 1, 2"):
        detector.fit_labelled(NORMALS, ["7"] * len(NORMALS))
