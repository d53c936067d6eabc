from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from certify.checks import InputError
from diffad import detector_class, load_detector
from diffad.backbones import Backbone
from diffad.ood_scores import BackboneScore, Mahalanobis, OpenMax, RelativeMahalanobis

NAMES = ("msp", "max_logit", "energy", "mahalanobis", "relative_mahalanobis", "openmax")
Build = Callable[..., Backbone]
TRAIN = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = ["abc"[i % 3] for i in range(60)]


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_without_its_network_says_how_to_give_it_one(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"{name}: has no backbone; use .*--detector {name} --backbone FOLDER"
    ):
        detector_class(name)().fit(TRAIN)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_a_head(name: str, build: Build) -> None:
    chosen, bare = detector_class(name), build(())
    assert issubclass(chosen, BackboneScore)
    if chosen.needs_head:
        with pytest.raises(InputError, match="the backbone has 0 logits, need at least 2"):
            chosen.from_backbone(bare)
        return
    detector = chosen.from_backbone(bare).fit_labelled(TRAIN, LABELS)
    assert detector.fit_info["labels_given"] == 1
    with pytest.raises(InputError, match="no logits to tell classes by; give them to fit_labelled"):
        detector.fit(TRAIN)


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_is_all_it_needs(name: str, tmp_path: Path, backbone: Backbone) -> None:
    detector = detector_class(name).from_backbone(backbone).fit_labelled(TRAIN, LABELS)
    detector.save_pretrained(tmp_path)
    assert torch.equal(load_detector(tmp_path).score(TRAIN), detector.score(TRAIN))


def test_without_labels_the_class_is_the_one_that_the_network_sees(backbone: Backbone) -> None:
    seen = ["abc"[k] for k in backbone.logits(TRAIN).argmax(1).tolist()]
    fitted = Mahalanobis.from_backbone(backbone).fit(TRAIN)
    assert fitted.fit_info["labels_given"] == 0
    assert torch.equal(fitted.means, Mahalanobis.from_backbone(backbone).fit_labelled(TRAIN, seen).means)
    other = Mahalanobis.from_backbone(backbone).fit_labelled(TRAIN, LABELS)
    assert not torch.equal(fitted.means, other.means)


def test_labels_follow_the_noisy_copies(backbone: Backbone) -> None:
    given = {"noise_sigma": 1e-6, "noise_copies": 3}
    noisy = Mahalanobis.from_backbone(backbone).fit_labelled(TRAIN, LABELS, **given)
    torch.testing.assert_close(
        noisy.means, Mahalanobis.from_backbone(backbone).fit_labelled(TRAIN, LABELS).means
    )


def test_one_class_is_refused_where_the_score_would_be_nothing(backbone: Backbone) -> None:
    one = ["a"] * len(TRAIN)
    assert len(Mahalanobis.from_backbone(backbone).fit_labelled(TRAIN, one).means) == 1
    assert OpenMax.from_backbone(backbone).fit_labelled(TRAIN, one).known.tolist() == [True, False, False]
    with pytest.raises(InputError, match=r"all training images are of class 'a'.* use mahalanobis"):
        RelativeMahalanobis.from_backbone(backbone).fit_labelled(TRAIN, one)


def test_labels_that_do_not_fit_are_refused(backbone: Backbone, build: Build) -> None:
    with pytest.raises(InputError, match="got 2 classes for 60 images"):
        Mahalanobis.from_backbone(backbone).fit_labelled(TRAIN, ["a", "b"])
    with pytest.raises(InputError, match="training images of class z; the network knows a, b, c"):
        OpenMax.from_backbone(backbone).fit_labelled(TRAIN, ["z"] * len(TRAIN))
    blind = build()
    blind.network.fc.weight *= 0
    with pytest.raises(InputError, match="answers all images alike"):
        OpenMax.from_backbone(blind).fit(TRAIN)
