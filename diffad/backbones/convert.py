"""`diffad backbones convert FILE OUT`: a published checkpoint, once, into a folder of safetensors and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from certify import console
from certify.checks import InputError
from diffad.backbones.architectures import build_network
from diffad.backbones.backbone import Backbone
from diffad.backbones.containers import read_weights, sha256
from diffad.backbones.network import Network
from diffad.backbones.published import choose_statistics, read_layout

# where the number of classes is read off
HEADS = ("fc.weight", "linear.weight", "logits.weight", "head.weight", "head.fc.weight", "classifier.weight")
IMPLIED = {"hat_repo": "preact_resnet"}
TINY_IMAGENET = 200  # classes; its images have 64 pixels
LIBRARY_PREFIX = "model."  # networks of torchvision and timm are wrapped


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Turn a published checkpoint into the folder of a backbone: safetensors and JSON, no pickle."""

    file: Annotated[str, tyro.conf.Positional]
    """*.pt, *.pth, *.ckpt or *.safetensors."""
    out: Annotated[str, tyro.conf.Positional]
    """Folder to write."""
    arch: str | None = None
    """resnet18, resnet34 (ours), torchvision:resnet50, timm:NAME, ...; None: as the layout says, else resnet18."""
    layout: str | None = None
    """madrylab, robustbench, hat_cifar, hat_repo or plain; None: recognised by the names in the file."""
    normalise: str | None = None
    """Mean and std where the file holds none: imagenet, cifar10, cifar100, half or none."""
    resolution: int | None = None
    """Height and width of the training images; None: as timm says, 224 for other ImageNet stems, else 32."""
    claim: str | None = None
    """What its publishers say about its robustness, for example "linf 8/255"; carried along, never believed."""
    trust_pickle: str | None = None
    """SHA-256 of a file that may run code while it is opened; the error without it shows it."""


@dataclass(frozen=True)
class Architecture:
    """An architecture as `build_network` takes it, and the size of the images it is for."""

    arch: str
    arguments: dict[str, Any]
    resolution: int


def convert(config: ConvertConfig) -> Backbone:
    """Read, check and save; every tensor of the network is in the file, and every one of the file is accounted for.

    Raises:
        InputError: an untrusted pickle; names or shapes that do not fit; statistics that are missing, or would be
            applied twice.
    """
    path = Path(config.file)
    weights, facts = read_weights(path, trust_pickle=config.trust_pickle)
    published = read_layout(weights, config.layout)
    mean, std = choose_statistics(published, config.normalise)
    architecture = choose_architecture(config.arch, published.layout, published.weights)
    with torch.random.fork_rng(devices=[]):
        network = build_network(architecture.arch, architecture.arguments)
    count = load_strictly(network, published.weights, architecture.arch)
    source = {
        "source": path.name,
        "sha256": sha256(path),
        "layout": published.layout,
        "tensors": count,
        "ignored": published.ignored,
        "robustness_claimed": config.claim,
    }
    backbone = Backbone(
        network,
        arch=architecture.arch,
        arguments=architecture.arguments,
        mean=mean,
        std=std,
        resolution=config.resolution or int(getattr(network, "resolution", architecture.resolution)),
        facts={**source, "in the file": facts},
    )
    backbone.save_pretrained(config.out)
    ignored = "".join(f", {number} ignored ({name})" for name, number in published.ignored.items())
    console.say(
        f"{path.name}: layout {published.layout}, {count} of {count} tensors of {architecture.arch} loaded{ignored}; "
        f"mean {tuple(mean)}, std {tuple(std)}, {backbone.resolution} pixels"
    )
    return backbone


def choose_architecture(arch: str | None, layout: str, weights: Mapping[str, Tensor]) -> Architecture:
    """Return what is asked for or what the layout and the names imply, with the classes of the head in the file."""
    classes = next((len(value) for name, value in weights.items() if name in HEADS), 0)
    first = weights.get("conv_2d.weight", weights.get("conv1.weight"))
    width = 64 if first is None else len(first)
    name = arch or ("hat_resnet" if "conv_2d.weight" in weights else IMPLIED.get(layout, "resnet18"))
    if name in ("hat_resnet", "preact_resnet"):
        side = 64 if classes == TINY_IMAGENET else 32
        return Architecture(name, {"width": width, "classes": classes}, side)
    blocks = {"resnet18": [2, 2, 2, 2], "resnet34": [3, 4, 6, 3]}
    if name in blocks:
        large = first is not None and first.shape[-1] == 7
        arguments = {
            "width": width,
            "blocks": blocks[name],
            "stem": "imagenet" if large else "small",
            "classes": classes,
        }
        return Architecture("resnet", arguments, 224 if large else 32)
    return Architecture(name, {"classes": classes}, 224)


def load_strictly(network: Network, weights: Mapping[str, Tensor], arch: str) -> int:
    """Fill the network and return the number of its tensors; names and shapes must all fit.

    Files of before PyTorch 0.4.1 lack `num_batches_tracked`, a counter that inference does not read.
    """
    prefix = LIBRARY_PREFIX if ":" in arch else ""
    given = {prefix + name: value for name, value in weights.items()}
    wanted = network.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing, unknown = sorted(set(wanted) - set(given) - counters), sorted(set(given) - set(wanted))
    if missing or unknown:
        raise InputError(
            f"{arch}: {len(set(wanted) & set(given))} of {len(wanted)} tensors are in the file; missing "
            f"{_some(missing)}; unknown {_some(unknown)}; another --arch or --layout?"
        )
    for name, value in given.items():
        if value.shape != wanted[name].shape:
            raise InputError(f"{arch}: {name} is {tuple(value.shape)}, need {tuple(wanted[name].shape)}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{arch}: {name} holds NaN or infinity; the file is damaged")
    network.load_state_dict({**{name: wanted[name] for name in counters}, **given}, strict=True)
    return len(wanted)


def _some(names: list[str]) -> str:
    """The first few names, and how many there are."""
    return (
        "nothing"
        if not names
        else f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''} ({len(names)})"
    )
