import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from certify.checks import InputError
from diffad.backbones import Backbone, ResNet, load_backbone, save

ARGUMENTS = {"width": 4, "blocks": [1, 1], "classes": 3}


def small(seed: int = 0, **changes: object) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNet(width=4, blocks=(1, 1), classes=3)
    options = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.25, 0.3), "resolution": 16, **changes}
    return Backbone(network, arch="resnet", arguments=ARGUMENTS, **options)


def images(
    count: int = 4, channels: int = 3, side: int = 16, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_features_normalise_once_inside() -> None:
    backbone = small()
    x = images()
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.25, 0.3])[:, None, None]
    expected = backbone.network.encode((x - mean) / std)[0]
    torch.testing.assert_close(backbone.features(x), expected)
    torch.testing.assert_close(backbone(x), expected)
    assert backbone.features(x).shape == (4, backbone.dim)
    assert not torch.allclose(backbone.network.encode(x)[0], expected)


def test_each_image_stays_by_itself_and_train_mode_changes_nothing() -> None:
    backbone = small()
    x = images(6)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    together = backbone.features(x)
    backbone.train()
    alone = torch.cat([backbone.features(x[i : i + 1]) for i in reversed(range(6))]).flip(0)
    torch.testing.assert_close(together, alone)
    assert not any(module.training for module in backbone.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


def test_a_grey_image_is_its_colour_copy() -> None:
    backbone = small()
    grey = images(channels=1)
    assert torch.equal(backbone.features(grey), backbone.features(grey.expand(-1, 3, -1, -1)))


def test_other_sizes_are_resized_inside_and_the_gradient_arrives_at_the_given_size() -> None:
    backbone = small()
    x = images(side=28).requires_grad_()
    resized = F.interpolate(x, size=(16, 16), mode="bilinear", antialias=True)
    torch.testing.assert_close(backbone.features(x), backbone.features(resized))
    backbone.features(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert (x.grad != 0).any()
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_the_gradient_is_that_of_finite_differences() -> None:
    backbone = small().double()
    x = images(1, side=8, dtype=torch.float64).requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    backbone.features(x).sum().backward()
    step = 1e-6
    with torch.no_grad():
        rise = backbone.features(x + step * direction).sum() - backbone.features(x - step * direction).sum()
    assert x.grad is not None
    assert float((x.grad * direction).sum()) == pytest.approx(float(rise) / (2 * step), rel=1e-4)


def test_values_outside_the_box_are_not_clipped() -> None:
    backbone = small()
    x = images()
    assert not torch.equal(backbone.features(x + 1.0), backbone.features((x + 1.0).clamp(0, 1)))


def test_layers_end_in_the_feature_and_logits_follow_from_it() -> None:
    backbone = small()
    x = images()
    maps = backbone.layers(x)
    assert {name: tuple(part.shape[1:]) for name, part in maps.items()} == {
        "layer1": (4, 16, 16),
        "layer2": (8, 8, 8),
    }
    torch.testing.assert_close(maps["layer2"].mean(dim=(2, 3)), backbone.features(x))
    torch.testing.assert_close(backbone.logits(x), backbone.network.head(backbone.features(x)))
    headless = Backbone(ResNet(width=4, classes=0), arch="resnet", arguments={"width": 4, "classes": 0})
    with pytest.raises(InputError, match="no classification head"):
        headless.logits(x)


def test_the_dtype_of_the_images_comes_back() -> None:
    backbone = small()
    assert backbone.features(images(dtype=torch.float64)).dtype == torch.float64
    assert {part.dtype for part in backbone.layers(images(dtype=torch.float64)).values()} == {torch.float64}


@pytest.mark.parametrize(
    "wrong", [torch.rand(2, 2, 16, 16), torch.rand(3, 16, 16), torch.zeros(2, 3, 8, 8).long()]
)
def test_wrong_images_are_named(wrong: torch.Tensor) -> None:
    with pytest.raises(InputError, match="backbone: got images"):
        small()._prepare(wrong)


@pytest.mark.parametrize("wrong", [{"mean": (0.1, 0.2)}, {"std": (0.0,)}, {"resolution": 0}])
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        small(**wrong)


def test_a_folder_gives_the_same_backbone_back(tmp_path: Path) -> None:
    backbone = small(facts={"source": "here", "robust": "said to be"})
    save(backbone, tmp_path / "backbone")
    state = torch.random.get_rng_state()
    again = load_backbone(tmp_path / "backbone")
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(again.features(images()), backbone.features(images()))
    assert again.config() == backbone.config()
    assert again.fingerprint() == backbone.fingerprint() != small(seed=1).fingerprint()
    assert again.fingerprint() == small().fingerprint(), "facts are no part of what is computed"
    assert "robust: said to be" in (tmp_path / "backbone" / "README.md").read_text(encoding="utf-8")
    assert not list((tmp_path / "backbone").glob("*.p*t*"))


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    tensors, text = load_file(weights), config.read_text(encoding="utf-8")

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_backbone(tmp_path)

    save_file({**tensors, "network.fc.bias": tensors["network.fc.bias"] + 1}, weights)
    refused("do not belong together")
    save_file({key: value for key, value in tensors.items() if key != "network.fc.bias"}, weights)
    refused(r"missing \['network.fc.bias'\]")
    save_file({**tensors, "network.fc.bias": torch.zeros(5)}, weights)
    refused("size mismatch")
    save_file(tensors, weights)
    config.write_text(json.dumps({**json.loads(text), "arch": "resnat"}), encoding="utf-8")
    refused("arch: got 'resnat', allowed are resnet")
    config.write_text(json.dumps({**json.loads(text), "arguments": {"depth": 3}}), encoding="utf-8")
    refused("does not take")
    config.write_text(json.dumps({**json.loads(text), "mean": [0.1, 0.2]}), encoding="utf-8")
    refused("mean: got 2 values")
    config.write_text("{}", encoding="utf-8")
    refused("is no backbone")
    config.unlink()
    refused(r"holds no config\.json")
