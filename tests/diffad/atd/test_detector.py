from __future__ import annotations

from pathlib import Path

import pytest
import torch
from parts import backbone, images, players
from safetensors.torch import load_file, save_file

from certify.checks import InputError
from diffad import load_detector
from diffad.atd import Atd, FeatureDiscriminator, PixelDiscriminator
from diffad.atd.network import Discriminator

TRAIN, TEST = images(0, 20), images(1)


def feature() -> Atd:
    return Atd.from_network(players().discriminator, backbone(8)).fit(TRAIN)


def pixel() -> Atd:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Atd.from_network(PixelDiscriminator(1, 8, (4, 6))).fit(TRAIN)


def test_the_score_is_minus_the_logit_of_the_features() -> None:
    discriminator = players().discriminator.eval()
    expected = -discriminator(backbone(8).features(TEST))
    torch.testing.assert_close(feature().score(TEST), expected)
    found = pixel()
    assert found.discriminator is not None
    torch.testing.assert_close(found.score(TEST), -found.discriminator(TEST))


def test_networks_that_do_not_fit_the_space_are_refused() -> None:
    judge = PixelDiscriminator(1, 8, (4, 6))
    with pytest.raises(
        InputError, match="space feature takes a FeatureDiscriminator, got PixelDiscriminator"
    ):
        Atd().attach(judge, backbone(8))
    with pytest.raises(InputError, match="space pixel takes a PixelDiscriminator, got FeatureDiscriminator"):
        Atd(space="pixel").attach(players().discriminator, None)


def test_a_score_far_away_keeps_its_gradient_where_the_published_one_loses_it() -> None:
    detector = feature()
    assert isinstance(detector.discriminator, FeatureDiscriminator)
    with torch.no_grad():
        last = detector.discriminator.layers[-1].weight
        last.mul_(200 / detector.score(TEST).abs().max())
    leaf = TEST.clone().requires_grad_()
    scores = detector.score(leaf)
    far = scores.detach().abs() > 20
    assert bool(far.any())
    (gradient,) = torch.autograd.grad(scores.sum(), leaf, retain_graph=True)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    published = scores.sigmoid()  # ATD's own score, the sigmoid of the logit
    (lost,) = torch.autograd.grad(published[far & (scores.detach() > 20)].sum(), leaf)
    assert not bool(lost.any())


@pytest.mark.parametrize("make", [feature, pixel], ids=["feature", "pixel"])
def test_the_folder_loads_elsewhere_without_data(make: object, tmp_path: Path) -> None:
    detector = make()  # type: ignore[operator]
    detector.calibrate(TEST, quantile=0.9)
    detector.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / "moved")
    before = torch.random.get_rng_state()
    loaded = load_detector(tmp_path / "moved")
    assert torch.equal(before, torch.random.get_rng_state())
    assert isinstance(loaded, Atd)
    assert torch.equal(loaded.score(TEST), detector.score(TEST))
    assert loaded.threshold_ == detector.threshold_
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert (tmp_path / "moved" / "backbone").exists() == (detector.space == "feature")


def test_tensors_of_another_discriminator_are_refused(tmp_path: Path) -> None:
    feature().save_pretrained(tmp_path)
    path = tmp_path / "discriminator" / "model.safetensors"
    tensors = load_file(path)
    name = "layers.0.weight"
    save_file({**tensors, name: tensors[name] + 1}, path)
    with pytest.raises(InputError, match="do not belong together"):
        load_detector(tmp_path)
    save_file({**tensors, name: torch.zeros(3, 3)}, path)
    with pytest.raises(InputError, match="size mismatch"):
        load_detector(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="holds no model"):
        load_detector(tmp_path)


def test_what_cannot_be_used_is_named() -> None:
    discriminators: list[Discriminator] = [FeatureDiscriminator(9, (4,)), PixelDiscriminator(1, 8, (4,))]
    with pytest.raises(InputError, match="a discriminator of 9 features on a backbone with 8"):
        Atd.from_network(discriminators[0], backbone(8))
    with pytest.raises(InputError, match="space feature needs the backbone"):
        Atd.from_network(discriminators[0])
    with pytest.raises(InputError, match="space pixel has no backbone"):
        Atd.from_network(discriminators[1], backbone(8))
    with pytest.raises(InputError, match=r"atd: has no network; train one .*diffad.atd.train"):
        Atd().fit(TRAIN)
    with pytest.raises(InputError, match="space: got 'image', allowed are feature, pixel"):
        Atd(space="image")
