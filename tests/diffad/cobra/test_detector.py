from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from certify import SmoothedDetector
from certify.checks import InputError
from diffad import load_detector
from diffad.attacks import attack
from diffad.backbones import Backbone, ResNet
from diffad.cobra import Cobra, Heads


def images(seed: int, count: int = 12) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


TRAIN, TEST = images(0, 20), images(1)


def parts(classes: int = 2) -> tuple[Backbone, Heads]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network, heads = ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1), Heads(8, 6, classes)
    arguments = {"width": 4, "blocks": [1, 1], "classes": 0, "in_channels": 1}
    return Backbone(network, arch="resnet", arguments=arguments, mean=[0.5], std=[0.5], resolution=8), heads


def fitted(classes: int = 2, **options: str) -> Cobra:
    return Cobra.from_network(*parts(classes), **options).fit(TRAIN)


def outputs(given: Tensor, classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    backbone, heads = parts(classes)
    features = backbone.features(given)
    return features, *heads.eval()(features)


@pytest.mark.parametrize("embedding", ["projection", "features"])
def test_cosine_is_minus_the_largest_cosine_to_a_normal(embedding: str) -> None:
    which = {"features": 0, "projection": 1}[embedding]
    bank, own = outputs(TRAIN)[which].double(), outputs(TEST)[which].double()
    expected = -(F.normalize(own, dim=1) @ F.normalize(bank, dim=1).T).amax(1)
    found = fitted(embedding=embedding).score(TEST)
    np.testing.assert_allclose(found.detach(), expected.detach(), atol=1e-6)
    np.testing.assert_allclose(fitted(embedding=embedding).score(TRAIN).detach(), -1.0, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_classifier_ranks_like_the_probability_of_not_being_normal(classes: int) -> None:
    probability = 1 - outputs(TEST, classes)[2].double().softmax(1)[:, 0]
    found = fitted(classes, score="classifier").score(TEST).detach().double()
    np.testing.assert_allclose(found.sigmoid(), probability.detach(), atol=1e-6)
    cosine = fitted(classes).score(TEST).detach()
    total = fitted(classes, score="sum").score(TEST).detach()
    np.testing.assert_allclose(total, cosine + probability.detach(), atol=1e-6)


def test_the_log_odds_keep_a_gradient_where_the_probability_has_none() -> None:
    detector = fitted(score="classifier")
    assert detector.heads is not None
    with torch.no_grad():
        detector.heads.classifier.bias.copy_(torch.tensor([-200.0, 200.0]))
    leaf = TEST.clone().requires_grad_()
    odds = detector.score(leaf)
    (gradient,) = torch.autograd.grad(odds.sum(), leaf, retain_graph=True)
    (lost,) = torch.autograd.grad(odds.sigmoid().sum(), leaf)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    assert not bool(lost.any())


def test_the_neighbour_is_found_anew_and_held_fixed_in_the_gradient() -> None:
    detector, leaf = fitted(), TEST[:1].double().requires_grad_()
    detector = detector.double()
    (gradient,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
    step = 1e-6 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (detector.score(leaf + step) - detector.score(leaf - step)) / 2e-6
    torch.testing.assert_close(slope[0], gradient.norm(), rtol=1e-4, atol=0)


def test_surrogates_bound_or_equal_what_they_stand_for() -> None:
    detector = fitted()
    soft, mean = (detector.surrogates()[name](TEST).detach() for name in ("soft_cosine", "mean_cosine"))
    score = detector.score(TEST).detach()
    assert bool((soft >= score - 1e-6).all())  # a soft maximum lies below the maximum
    assert float((soft - score).abs().max()) < 0.2
    directions = F.normalize(outputs(TRAIN)[1].double(), dim=1)
    own = F.normalize(outputs(TEST)[1].double(), dim=1)
    expected = -own @ F.normalize(directions.mean(0), dim=0)
    np.testing.assert_allclose(mean, expected.detach(), atol=1e-6)
    assert fitted(score="classifier").surrogates() == {}
    total = fitted(score="sum").surrogates()["sum_of_log_odds"](TEST).detach()
    odds = fitted(score="classifier").score(TEST).detach()
    torch.testing.assert_close(total, score + odds, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("classes", "shifts"), [(2, 1), (4, 4)])
def test_the_released_score_is_its_formula(classes: int, shifts: int) -> None:
    from diffad.cobra.released import VIEWS, view

    def averaged(given: Tensor, shift: int) -> tuple[Tensor, Tensor]:
        turned = given.rot90(shift, (2, 3))
        found = [outputs(view(turned, number), classes)[1:] for number in range(VIEWS)]
        return torch.stack([z for z, _ in found]).mean(0), torch.stack([k[:, shift] for _, k in found]).mean(
            0
        )

    expected = torch.zeros(len(TEST), dtype=torch.float64)
    for shift in range(shifts):
        bank, bank_logits = averaged(TRAIN, shift)
        own, logits = averaged(TEST, shift)
        nearest = (own @ F.normalize(bank, dim=1).T).amax(1) / bank.norm(dim=1).mean()
        expected -= (nearest + logits / bank_logits.mean()).double().detach() / shifts
    found = fitted(classes, score="ensemble_released").score(TEST)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_released_score_states_its_approximate_gradient_in_every_attack() -> None:
    options = {"norm": "linf", "eps": 0.1, "method": "fgsm"}
    labels = np.array([0, 1])
    released = fitted(score="ensemble_released")
    said = attack(released, TEST[:2], labels, **options).info["gradient"]
    assert said == "approximate: straight-through colour jitter"
    smoothed = SmoothedDetector(released, sigma=0.1, n=50, smoothing="input", batch_size=50)
    noisy = attack(smoothed, TEST[:2], labels, **options, eot=2, steps=1)
    assert noisy.info["gradient"] == said
    assert "gradient" not in attack(fitted(), TEST[:2], labels, **options).info


def test_the_exact_surrogate_has_the_value_of_the_released_score_and_its_slope() -> None:
    released = fitted(score="ensemble_released").double()
    exact, leaf = released.surrogates()["exact_jitter"], (0.2 + 0.4 * TEST[:1]).double().requires_grad_()
    torch.testing.assert_close(exact(leaf), released.score(leaf), rtol=1e-6, atol=1e-9)
    (gradient,) = torch.autograd.grad(exact(leaf).sum(), leaf)
    step = 1e-6 * gradient / gradient.norm()
    with torch.no_grad():
        slope = (released.score(leaf + step) - released.score(leaf - step)) / 2e-6
    torch.testing.assert_close(slope[0], gradient.norm(), rtol=1e-3, atol=0)
    (straight,) = torch.autograd.grad(released.score(leaf).sum(), leaf)
    assert not torch.allclose(straight, gradient)


def test_views_of_an_image_do_not_depend_on_its_place_in_the_batch() -> None:
    detector = fitted(score="ensemble_released")
    together = detector.score(TEST).detach()
    alone = torch.cat([detector.score(TEST[row : row + 1]).detach() for row in range(len(TEST))])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-6)


def test_the_folder_loads_elsewhere_without_data(tmp_path: Path) -> None:
    detector = fitted(4, score="sum", embedding="features")
    detector.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = load_detector(tmp_path / "moved")
    assert isinstance(loaded, Cobra)
    assert loaded.heads is not None
    assert loaded.heads.classes == 4
    assert torch.equal(loaded.score(TEST), detector.score(TEST))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_heads_of_another_detector_are_refused(tmp_path: Path) -> None:
    fitted().save_pretrained(tmp_path)
    path = tmp_path / "heads" / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "classifier.bias": tensors["classifier.bias"] + 1}, path)
    with pytest.raises(InputError, match="do not belong together"):
        load_detector(tmp_path)
    save_file({**tensors, "classifier.bias": torch.zeros(3)}, path)
    with pytest.raises(InputError, match="size mismatch"):
        load_detector(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="holds no model"):
        load_detector(tmp_path)


def test_training_images_among_test_images_are_named() -> None:
    assert fitted().in_bank(torch.cat([TEST, TRAIN[3:5]])) == [12, 13]


def test_what_cannot_be_used_is_named() -> None:
    backbone, _ = parts()
    with pytest.raises(InputError, match="score: got 'max', allowed are cosine"):
        Cobra(score="max")
    with pytest.raises(InputError, match="embedding: got 'z'"):
        Cobra(embedding="z")
    with pytest.raises(InputError, match="heads for 9 features on an encoder with 8"):
        Cobra.from_network(backbone, Heads(9))
    with pytest.raises(InputError, match=r"cobra: has no network; train one .*diffad.cobra.train"):
        Cobra().fit(TRAIN)
    with pytest.raises(InputError, match="classes 1"):
        Heads(8, 6, 1)
