"""The layouts in which robust checkpoints are published, recognised by their names and read strictly.

    madrylab     MadryLab and Microsoft, ImageNet: `module.model.*`, statistics in `module.normalizer`, and a second
                 copy of all weights in `module.attacker`
    robustbench  RobustBench, ImageNet: `model.*` behind `normalize.mean` and `normalize.std`
    hat_cifar    RobustBench, CIFAR: helper-based training with its own architecture; statistics are not in the file
    hat_repo     the repository of helper-based training: `module.0.*`, or `module.1.*` behind a normalisation whose
                 statistics are not in the file
    plain        a state dict of torchvision, timm or ours, perhaps behind `module.`; statistics are not in the file

Only true prefixes are stripped, all of the kept names must fit the architecture and none may be missing. Statistics
that a file holds win over those of its data set and must agree with any that are given: an image is normalised once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from certify.checks import InputError, check_choice

Weights = Mapping[str, Tensor]

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,), (1.0,)),
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


@dataclass(frozen=True, eq=False)
class Published:
    """What a file holds, in the names of the architecture.

    `statistics` is (mean, std) where the file has them. `needs_statistics` is False where the network was trained
    on [0, 1]. `ignored` counts tensors that are no part of the network, such as the attacker's copy.
    """

    layout: str
    weights: dict[str, Tensor]
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    needs_statistics: bool = True
    ignored: dict[str, int] = field(default_factory=dict)


def below(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def without_wrapper(weights: Weights) -> dict[str, Tensor]:
    """Return the weights without the `module.` of data parallelism, if all of them have it."""
    return below(weights, "module.") if all(name.startswith("module.") for name in weights) else dict(weights)


def madrylab(weights: Weights) -> Published | None:
    """Read `module.model.*`; the attacker's copy must equal it."""
    bare = without_wrapper(weights)
    model, copy = below(bare, "model."), below(bare, "attacker.model.")
    mean, std = bare.get("normalizer.new_mean"), bare.get("normalizer.new_std")
    if not model or mean is None or std is None:
        return None
    attacker = below(bare, "attacker.")
    known = {f"model.{name}" for name in model} | {f"attacker.{name}" for name in attacker}
    _refuse_unknown(set(bare) - known - {"normalizer.new_mean", "normalizer.new_std"}, "madrylab")
    different = [
        name for name, value in copy.items() if name not in model or not torch.equal(value, model[name])
    ]
    if different:
        raise InputError(
            f"layout madrylab: the attacker's copy differs from the model in {len(different)} tensors "
            f"({different[0]}, ...); the file is damaged"
        )
    return Published("madrylab", model, _statistics(mean, std), ignored={"attacker's copy": len(attacker)})


def robustbench(weights: Weights) -> Published | None:
    """Read `model.*` behind `normalize.mean` and `normalize.std`."""
    bare = without_wrapper(weights)
    model, outside = below(bare, "model."), set(bare) - {name for name in bare if name.startswith("model.")}
    if not model or not outside <= {"normalize.mean", "normalize.std"}:
        return None
    if outside and len(outside) != 2:
        raise InputError(f"layout robustbench: holds {sorted(outside)} only, need mean and std or neither")
    given = _statistics(bare["normalize.mean"], bare["normalize.std"]) if outside else None
    return Published("robustbench", model, given)


def hat_cifar(weights: Weights) -> Published | None:
    """Read the names of RobustBench's own ResNet-18 for helper-based training."""
    bare = without_wrapper(weights)
    if not {"conv_2d.weight", "layer_0.0.conv_2d_1.weight", "logits.weight"} <= set(bare):
        return None
    given = _statistics(bare["mean"], bare["std"]) if {"mean", "std"} <= set(bare) else None
    return Published("hat_cifar", {n: v for n, v in bare.items() if n not in ("mean", "std")}, given)


def hat_repo(weights: Weights) -> Published | None:
    """Read `module.0.*` (trained on [0, 1]) or `module.1.*` (behind a normalisation without parameters)."""
    bare = without_wrapper(weights)
    for place in ("0", "1"):
        inside = below(bare, f"{place}.")
        if not inside or len(inside) < len(bare):
            continue
        inner = (
            "conv_2d.weight" in inside
        )  # its Swish variant is that of RobustBench, which normalises by itself
        if inner and place == "1":
            raise InputError(
                "layout hat_repo: this network was trained on images normalised twice; not supported"
            )
        return Published("hat_repo", inside, needs_statistics=inner or place == "1")
    return None


def plain(weights: Weights) -> Published | None:
    """Read a state dict of the architecture itself."""
    bare = without_wrapper(weights)
    ours = below(bare, "network.")
    return Published("plain", ours if len(ours) == len(bare) else bare)


LAYOUTS: dict[str, Callable[[Weights], Published | None]] = {
    "madrylab": madrylab,
    "robustbench": robustbench,
    "hat_cifar": hat_cifar,
    "hat_repo": hat_repo,
    "plain": plain,
}


def read_layout(weights: Weights, layout: str | None = None) -> Published:
    """Return the weights of the network in a file; the first layout that fits unless one is named."""
    if layout is not None:
        check_choice(layout, tuple(LAYOUTS), "layout")
        found = LAYOUTS[layout](weights)
        if found is None:
            raise InputError(
                f"layout: the file is not laid out as {layout}; its names are {', '.join(sorted(weights)[:3])}, ..."
            )
        return found
    return next(found for read in LAYOUTS.values() if (found := read(weights)) is not None)


def choose_statistics(published: Published, named: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of the one normalisation: that of the file, else that named by its data set.

    Raises:
        InputError: the file holds none and none is named, or both are there and differ.
    """
    chosen = None
    if named is not None:
        check_choice(named, tuple(STATISTICS), "normalise")
        chosen = STATISTICS[named]
    if published.statistics is not None:
        if chosen is not None and not _close(chosen, published.statistics):
            raise InputError(
                f"--normalise: the file normalises by {published.statistics} itself, {named} would be a second "
                "time; leave it out"
            )
        return published.statistics
    if not published.needs_statistics:
        if chosen not in (None, STATISTICS["none"]):
            raise InputError(
                f"--normalise: got {named}, but this network was trained on [0, 1] (its names begin with 0.); "
                "leave it out"
            )
        return STATISTICS["none"]
    if chosen is None:
        raise InputError(
            f"--normalise: the file holds no mean and std; name those of its training, one of {', '.join(STATISTICS)}"
        )
    return chosen


def _statistics(mean: Tensor, std: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(mean.flatten().tolist()), tuple(std.flatten().tolist())


def _close(one: tuple[tuple[float, ...], ...], other: tuple[tuple[float, ...], ...]) -> bool:
    return all(
        len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True)
    )


def _refuse_unknown(names: set[str], layout: str) -> None:
    if names:
        raise InputError(f"layout {layout}: does not know {sorted(names)[:3]}")
