"""Files in each published layout, with random weights, become the backbone that the layout means."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from torch import Tensor, nn
from torch.nn import functional as F

from diffad.backbones import ResNet, load_backbone
from diffad.backbones.architectures import build_network
from diffad.backbones.hat_resnet import HatResNet
from diffad.backbones.network import Network
from diffad.backbones.packaged import TimmNetwork
from diffad.backbones.preact_resnet import PreActResNet
from diffad.backbones.published import STATISTICS
from diffad.commands.backbones import main


class Malicious:
    """Makes a folder while it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


State = dict[str, Tensor]
Reference = Callable[[Tensor], Tensor]
IMAGENET, CIFAR = STATISTICS["imagenet"], STATISTICS["cifar10"]


def initial(build: Callable[[], Network], seed: int = 0) -> Network:
    """A network whose statistics are no 0 and 1 that a missing tensor could hide behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().eval()
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.uniform_(0.5, 1.5)
    return network


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def normalised(network: nn.Module, statistics: Any) -> Reference:
    mean, std = (torch.tensor(values)[:, None, None] for values in statistics)
    return lambda images: network((images - mean) / std)


def imagenet_resnet() -> Network:
    return initial(lambda: ResNet(width=4, stem="imagenet", classes=5))


def cifar_preact() -> Network:
    return initial(lambda: PreActResNet(width=4, classes=10))


def cifar_hat() -> Network:
    return initial(lambda: HatResNet(width=4, classes=10))


def madrylab(container: str) -> tuple[Any, list[str], Reference]:
    network = imagenet_resnet()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET)
    state = {
        **under("module.model.", network.state_dict()),
        **under("module.attacker.model.", network.state_dict()),
        "module.normalizer.new_mean": mean,
        "module.normalizer.new_std": std,
        "module.attacker.normalize.new_mean": mean,
        "module.attacker.normalize.new_std": std,
    }
    return {container: state, "epoch": 89, "optimizer": {"state": {}}}, [], normalised(network, IMAGENET)


def robustbench(container: str | None, prefix: str) -> tuple[Any, list[str], Reference]:
    network = imagenet_resnet()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    state = under(
        prefix, {**under("model.", network.state_dict()), "normalize.mean": mean, "normalize.std": std}
    )
    return ({container: state} if container else state), [], normalised(network, IMAGENET)


def robustbench_bare() -> tuple[Any, list[str], Reference]:
    network = imagenet_resnet()
    words = ["--normalise", "imagenet"]
    return under("model.", network.state_dict()), words, normalised(network, IMAGENET)


def hat_cifar(named: str) -> tuple[Any, list[str], Reference]:
    network = cifar_hat()
    return network.state_dict(), ["--normalise", named], normalised(network, STATISTICS[named])


def hat_repo(place: str) -> tuple[Any, list[str], Reference]:
    network = cifar_preact()
    state = under(f"module.{place}.", network.state_dict())
    whole = {
        "model_state_dict": state,
        "unaveraged_model_state_dict": under("module.0.", {"x": torch.ones(1)}),
    }
    if place == "0":
        return whole, [], network
    return whole, ["--normalise", "cifar10"], normalised(network, CIFAR)


def hat_repo_swish() -> tuple[Any, list[str], Reference]:
    network = cifar_hat()
    state = {"model_state_dict": under("module.0.", network.state_dict())}
    return state, ["--normalise", "cifar10"], normalised(network, CIFAR)


def torchvision_file() -> tuple[Any, list[str], Reference]:
    torch.manual_seed(0)
    network = torchvision.models.resnet18(weights=None, num_classes=6).eval()
    return network.state_dict(), ["--normalise", "imagenet"], normalised(network, IMAGENET)


def torchvision_bottleneck() -> tuple[Any, list[str], Reference]:
    torch.manual_seed(0)
    network = torchvision.models.resnet50(weights=None, num_classes=6).eval()
    words = ["--arch", "torchvision:resnet50", "--normalise", "imagenet", "--resolution", "64"]
    return under("module.", network.state_dict()), words, normalised(network, IMAGENET)


CASES: dict[str, Callable[[], tuple[Any, list[str], Reference]]] = {
    "madrylab": lambda: madrylab("model"),
    "madrylab legacy": lambda: madrylab("state_dict"),
    "robustbench imagenet": lambda: robustbench("state_dict", "module."),
    "robustbench imagenet flat": lambda: robustbench(None, ""),
    "robustbench imagenet without statistics": robustbench_bare,
    "robustbench hat cifar10": lambda: hat_cifar("cifar10"),
    "robustbench hat cifar100": lambda: hat_cifar("cifar100"),
    "hat repository on pixels": lambda: hat_repo("0"),
    "hat repository normalised": lambda: hat_repo("1"),
    "hat repository swish": hat_repo_swish,
    "torchvision": torchvision_file,
    "torchvision bottleneck": torchvision_bottleneck,
}


@pytest.mark.parametrize("case", CASES)
def test_a_published_file_becomes_its_network(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, words, reference = CASES[case]()
    file, out = tmp_path / "robust_linf_8.ckpt", tmp_path / "backbone"
    torch.save(saved, file)
    assert main(["convert", str(file), str(out), "--claim", "linf 8/255", *words]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(out)
    backbone = load_backbone(out)
    side = backbone.resolution
    assert side == (64 if "bottleneck" in case else 32 if "hat" in case else 224)
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(backbone.logits(images), reference(images), rtol=1e-4, atol=1e-4)
    count = len(backbone.network.state_dict())
    assert f"{count} of {count} tensors" in printed.err
    assert backbone.facts["tensors"] == count
    assert backbone.facts["robustness_claimed"] == "linf 8/255"
    assert ("ignored" in printed.err) == case.startswith("madrylab")
    assert not list(out.glob("*.p*t*"))


def failure(tmp_path: Path, saved: Any, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    torch.save(saved, tmp_path / "file.pt")
    assert main(["convert", str(tmp_path / "file.pt"), str(tmp_path / "out"), *words]) == 1
    assert not (tmp_path / "out").exists()
    return capsys.readouterr().err.splitlines()[-1]


def test_wrong_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = imagenet_resnet().state_dict()
    plain = ["--normalise", "imagenet"]

    def refused(saved: Any, words: list[str]) -> str:
        return failure(tmp_path, saved, words, capsys)

    assert "0 of 120 tensors are in the file" in refused(under("encoder.", state), plain)
    partly = {("backbone." if "layer4" in name else "") + name: value for name, value in state.items()}
    assert "unknown backbone.layer4.0" in refused(partly, plain)
    without = {name: value for name, value in state.items() if name != "layer2.0.bn1.running_var"}
    assert "missing layer2.0.bn1.running_var (1)" in refused(without, plain)
    assert "layer2.0.bn1.bias is (3,), need (8,)" in refused(
        {**state, "layer2.0.bn1.bias": torch.zeros(3)}, plain
    )
    assert "holds NaN" in refused({**state, "fc.bias": torch.full((5,), float("nan"))}, plain)
    assert "holds no mean and std" in refused(state, [])
    saved, _, _ = robustbench(None, "")
    assert "would be a second time" in refused(saved, ["--normalise", "cifar10"])
    assert "trained on [0, 1]" in refused(hat_repo("0")[0], ["--normalise", "cifar10"])
    assert "normalised twice" in refused(under("module.1.", cifar_hat().state_dict()), plain)
    assert "layout: got 'nothing', allowed are madrylab" in refused(state, [*plain, "--layout", "nothing"])
    assert "missing layer1.2.bn1.bias" in refused(state, [*plain, "--arch", "resnet34"])


def test_counters_of_old_files_may_be_missing(tmp_path: Path) -> None:
    state = imagenet_resnet().state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pt")
    words = ["convert", str(tmp_path / "old.pt"), str(tmp_path / "out"), "--normalise", "imagenet"]
    assert main(words) == 0


def test_the_hat_network_has_its_own_shortcut_padding_and_activation() -> None:
    network = cifar_hat()
    assert isinstance(network, HatResNet)
    block = network.layer_1[0]
    images = torch.rand(2, 4, 8, 8)
    padded = F.pad(images, (0, 1, 0, 1))
    norm = block.batchnorm_0(images)
    active = norm * torch.sigmoid(norm)
    first = F.conv2d(F.pad(active, (0, 1, 0, 1)), block.conv_2d_1.weight, stride=2)
    second = block.batchnorm_1(first)
    expected = F.conv2d(second * torch.sigmoid(second), block.conv_2d_2.weight, padding=1) + F.conv2d(
        padded, block.shortcut.weight, stride=2
    )
    torch.testing.assert_close(block(images), expected)


def test_facts_keep_the_source(tmp_path: Path) -> None:
    saved, words, _ = madrylab("model")
    torch.save(saved, tmp_path / "resnet18_linf_eps4.0.ckpt")
    assert main(["convert", str(tmp_path / "resnet18_linf_eps4.0.ckpt"), str(tmp_path / "out"), *words]) == 0
    facts = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))["facts"]
    assert facts["source"] == "resnet18_linf_eps4.0.ckpt"
    assert len(facts["sha256"]) == 64
    assert facts["in the file"] == {"epoch": 89}
    assert str(tmp_path) not in json.dumps(facts)


def test_a_file_that_would_run_code_is_refused_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "executed"
    saved, words, _ = madrylab("model")
    message = failure(tmp_path, {**saved, "schedule": Malicious(target)}, words, capsys)
    digest = hashlib.sha256((tmp_path / "file.pt").read_bytes()).hexdigest()
    assert message.endswith(f"give --trust_pickle {digest}")
    refused = failure(tmp_path, saved | {"schedule": Malicious(target)}, ["--trust_pickle", "0" * 64], capsys)
    assert "it is not opened" in refused
    assert not target.exists()


def test_a_transformer_of_timm_keeps_its_size(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    network = initial(lambda: build_network("timm:vit_tiny_patch16_384", {"classes": 3}))
    assert isinstance(network, TimmNetwork)
    torch.save(network.model.state_dict(), tmp_path / "vit.pt")
    words = ["--arch", "timm:vit_tiny_patch16_384", "--normalise", "imagenet"]
    assert main(["convert", str(tmp_path / "vit.pt"), str(tmp_path / "out"), *words]) == 0
    assert load_backbone(tmp_path / "out").resolution == 384


def test_a_picture_of_the_mean_colour_reaches_the_network_as_zero(tmp_path: Path) -> None:
    """Normalised once: twice would make it -mean / std, never would leave it as it is."""
    saved, words, _ = madrylab("model")
    torch.save(saved, tmp_path / "file.pt")
    assert main(["convert", str(tmp_path / "file.pt"), str(tmp_path / "out"), *words]) == 0
    backbone = load_backbone(tmp_path / "out")
    seen: list[Tensor] = []
    backbone.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    backbone.logits(torch.cat([mean.expand(1, 3, 224, 224), torch.full((1, 3, 224, 224), 0.5)]))
    assert float(seen[0][0].abs().max()) < 1e-6
    torch.testing.assert_close(seen[0][1], ((0.5 - mean) / std).expand(3, 224, 224))
