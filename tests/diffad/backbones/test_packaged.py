import importlib.util

import pytest
import torch

from certify.checks import InputError
from diffad.backbones import Backbone
from diffad.backbones.architectures import build_network


def test_torchvision_features_are_what_its_head_reads() -> None:
    network = build_network("torchvision:resnet18", {"classes": 3}).eval()
    images = torch.rand(1, 3, 64, 64)
    feature, maps = network.encode(images)
    assert (network.dim, feature.shape) == (512, (1, 512))
    assert [tuple(part.shape[1:]) for part in maps.values()] == [
        (64, 16, 16),
        (128, 8, 8),
        (256, 4, 4),
        (512, 2, 2),
    ]
    torch.testing.assert_close(network(images), network.model(images))


def test_only_residual_classifiers_of_torchvision() -> None:
    for name in ("vgg11", "fcn_resnet50", "resnet9"):
        with pytest.raises(InputError, match=f"torchvision: got '{name}', allowed are resnet101.*resnet18"):
            build_network(f"torchvision:{name}", {})


def test_absent_timm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="timm is not installed; pip install"):
        build_network("timm:resnet18", {})


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_features_are_what_its_head_reads(name: str) -> None:
    pytest.importorskip("timm")
    arguments = {"classes": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(f"timm:{name}", arguments)
    backbone = Backbone(network, arch=f"timm:{name}", arguments=arguments, resolution=224)
    images = torch.rand(1, 3, 32, 32)
    assert backbone.features(images).shape == (1, network.dim)
    torch.testing.assert_close(backbone.logits(images), network.model(backbone._prepare(images)))
    assert all(part.ndim == 4 for part in backbone.layers(images).values())
    with pytest.raises(InputError, match="no model of timm"):
        build_network("timm:nothing", {})
