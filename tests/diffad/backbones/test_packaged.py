import importlib.util

import pytest
import torch

from certify.checks import InputError
from diffad.backbones import Backbone
from diffad.backbones.architectures import build_network
from diffad.zarnd import Zarnd


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


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "deit_tiny_patch16_224"])
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


def test_the_wide_resnet_of_torchvision_has_its_published_size() -> None:
    with torch.device("meta"):
        network = build_network("torchvision:wide_resnet50_2", {"classes": 1000})
    assert (network.dim, sum(tensor.numel() for tensor in network.parameters())) == (2048, 68_883_240)


def deit(name: str = "deit_tiny_distilled_patch16_224", resolution: int = 224) -> Backbone:
    pytest.importorskip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(f"timm:{name}", {"classes": 3})
    return Backbone(network, arch=f"timm:{name}", arguments={"classes": 3}, resolution=resolution)


def test_a_distilled_transformer_has_features_and_no_one_head() -> None:
    backbone, images = deit(), torch.rand(2, 3, 32, 32)
    assert backbone.features(images).shape == (2, 192)
    with pytest.raises(InputError, match="two heads on two tokens; use features"):
        backbone.logits(images)


def test_a_transformer_at_another_size_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"timm: .*32.*224.*; give the backbone resolution 224"):
        deit(resolution=32).features(torch.rand(1, 3, 32, 32))


def test_zarnd_joins_the_patch_tokens_of_blocks_with_the_feature() -> None:
    backbone = deit("deit_tiny_patch16_224")
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    detector = Zarnd.from_backbone(backbone, layers=("layer6", "layer12", "features")).fit(images[:5])
    assert detector.bank.shape == (5, 3 * 192)
    tokens = backbone.layers(images)["layer6"]
    torch.testing.assert_close(detector.features(images)[:, :192], tokens.mean((2, 3)))
    leaf = images[5:].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
    assert bool(torch.isfinite(gradient).all())
    assert bool(gradient.any())
