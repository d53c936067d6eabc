import pytest
import torch

from certify.checks import InputError
from diffad.backbones.published import STATISTICS, Published, choose_statistics, read_layout

MEAN, STD = STATISTICS["imagenet"]


def named(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.full((2,), float(number)) for number, name in enumerate(names)}


def statistics(mean: str, std: str) -> dict[str, torch.Tensor]:
    return {mean: torch.tensor(MEAN).view(3, 1, 1), std: torch.tensor(STD).view(1, 3, 1, 1)}


def test_only_true_prefixes_are_stripped() -> None:
    found = read_layout(
        {**named("model.fc.weight", "model.model.bias"), **statistics("normalize.mean", "normalize.std")}
    )
    assert found.layout == "robustbench"
    assert set(found.weights) == {"fc.weight", "model.bias"}
    inside = read_layout(named("fc.module.weight", "module.bias"))
    assert (inside.layout, set(inside.weights)) == ("plain", {"fc.module.weight", "module.bias"})
    wrapped = read_layout(named("module.fc.weight", "module.module.bias"))
    assert set(wrapped.weights) == {"fc.weight", "module.bias"}


def test_a_copy_of_the_attacker_that_differs_is_refused() -> None:
    names = ("module.model.fc.weight", "module.attacker.model.fc.weight")
    weights = {**named(*names), **statistics("module.normalizer.new_mean", "module.normalizer.new_std")}
    with pytest.raises(InputError, match="attacker's copy differs from the model in 1 tensors"):
        read_layout(weights)
    with pytest.raises(InputError, match=r"does not know \['extra'\]"):
        read_layout({**weights, names[1]: weights[names[0]], "module.extra": torch.zeros(1)})


def test_a_named_layout_must_fit() -> None:
    with pytest.raises(InputError, match=r"not laid out as madrylab; its names are fc\.weight"):
        read_layout(named("fc.weight"), "madrylab")
    with pytest.raises(InputError, match="layout: got 'zoo', allowed are madrylab"):
        read_layout(named("fc.weight"), "zoo")


def test_an_image_is_normalised_once() -> None:
    own = Published("robustbench", {}, (MEAN, STD))
    assert choose_statistics(own, None) == choose_statistics(own, "imagenet") == (MEAN, STD)
    with pytest.raises(InputError, match="would be a second time"):
        choose_statistics(own, "cifar10")
    trained_on_pixels = Published("hat_repo", {}, needs_statistics=False)
    assert choose_statistics(trained_on_pixels, None) == ((0.0,), (1.0,))
    with pytest.raises(InputError, match=r"trained on \[0, 1\]"):
        choose_statistics(trained_on_pixels, "cifar10")
    with pytest.raises(InputError, match="holds no mean and std; name those of its training"):
        choose_statistics(Published("plain", {}), None)
    assert choose_statistics(Published("plain", {}), "cifar100") == STATISTICS["cifar100"]


def test_a_network_that_normalises_by_itself_behind_a_normalisation_is_refused() -> None:
    with pytest.raises(InputError, match="normalised twice"):
        read_layout(named("module.1.conv_2d.weight", "module.1.batchnorm.weight"))
