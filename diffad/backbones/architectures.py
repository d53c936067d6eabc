"""From the name of an architecture and its arguments to a network with initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from certify.checks import InputError, check_choice
from diffad.backbones.hat_resnet import HatResNet
from diffad.backbones.linear import LinearProjection
from diffad.backbones.network import Network
from diffad.backbones.packaged import TimmNetwork, TorchvisionResNet
from diffad.backbones.preact_resnet import PreActResNet
from diffad.backbones.resnet import ResNet
from diffad.folder import one_line

OURS: dict[str, type[Network]] = {
    "resnet": ResNet,
    "preact_resnet": PreActResNet,
    "hat_resnet": HatResNet,
    "linear": LinearProjection,
}
LIBRARIES: dict[str, type[Network]] = {"torchvision": TorchvisionResNet, "timm": TimmNetwork}


def build_network(arch: str, arguments: Mapping[str, Any]) -> Network:
    """Return a network: `resnet`, `preact_resnet`, `hat_resnet`, `linear`, `torchvision:NAME` or `timm:NAME`.

    `arguments` are JSON values (lists for tuples) of the constructor. Draws initial weights from PyTorch's global
    generator, as constructors do: fork it where that matters.

    Raises:
        InputError: unknown architecture, or arguments that it does not take.
    """
    library, _, name = arch.partition(":")
    allowed = (*OURS, *(f"{known}:NAME" for known in LIBRARIES))
    check_choice(f"{library}:NAME" if name else arch, allowed, "arch")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        return LIBRARIES[library](name, **values) if name else OURS[arch](**values)
    except TypeError as error:
        raise InputError(f"arch: {arch} does not take {dict(arguments)} ({one_line(error)})") from error
