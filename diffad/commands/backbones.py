"""`diffad backbones`: convert published weights, make linear features, measure robustness."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from certify import console
from certify.checks import InputError, check_device
from diffad.attacks.threat import Norm
from diffad.backbones import Backbone, load_backbone
from diffad.backbones.convert import ConvertConfig, convert
from diffad.backbones.displacement import ROBUST_RATIO, feature_displacement
from diffad.backbones.labelled import load_labelled
from diffad.backbones.projections import principal_projection, random_projection
from diffad.data import load_data
from diffad.manifest import without_paths
from diffad.precision import exact_float32
from diffad.sources import default_class


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Write the folder of a linear backbone, whose features certify zarnd without noise (--smoothing none)."""

    out: Annotated[str, tyro.conf.Positional]
    """Folder to write."""
    kind: Literal["pca", "random"] = "pca"
    """Principal components of images of another set (their classes are not used), or random directions."""
    dim: int = 64
    """Length of the feature."""
    resolution: int = 32
    """Height and width of the images that will be scored: others have no constant."""
    in_channels: int = 3
    """1 for grey, 3 for colour."""
    data: str | None = None
    """The other set, of pca: cifar10, digits, folder:PATH, ..."""
    exclude_classes: tuple[str, ...] = ()
    """Classes of it left out, to stay unseen."""
    images: int = 1000
    """Images of it, at most."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """Measure how much less an attack moves the features of a robust backbone than those of its standard twin."""

    robust: Annotated[str, tyro.conf.Positional]
    """Folder of the backbone said to be robust."""
    standard: Annotated[str, tyro.conf.Positional]
    """Folder of its standard twin."""
    data: str = "digits"
    """Whose test images are attacked."""
    normal_class: str | None = None
    resolution: int | None = None
    """Height and width at which they are attacked; None: as the data set has it."""
    images: int = 32
    """Of each label."""
    norm: Norm = "linf"
    eps: str = "4/255"
    """Size of the attack, [0, 1] pixel units."""
    steps: int = 20
    """Gradient steps."""
    device: str = "cpu"
    seed: int = 0
    json: bool = False
    """Print one JSON object."""


def linear(config: LinearConfig) -> None:
    """Make a linear backbone and print its folder."""
    if (config.data is None) != (config.kind == "random"):
        raise InputError(
            f"--data: got {config.data}, --kind {config.kind}; pca needs the images of another set, random takes none"
        )
    if config.data is None:
        backbone = random_projection(config.dim, config.resolution, config.in_channels, seed=config.seed)
    else:
        split = load_labelled(
            config.data,
            exclude=config.exclude_classes,
            resolution=config.resolution,
            channels=config.in_channels,
            limit=config.images,
            seed=config.seed,
        )
        facts = {"data": split.name, "excluded": list(config.exclude_classes), "seed": config.seed}
        backbone = principal_projection(split.train.images, config.dim, without_paths(facts))
        console.say(
            f"{config.dim} components of {len(split.train)} images of {split.name}: "
            f"{backbone.facts['explained_variance']:.3f} of their variance"
        )
    backbone.save_pretrained(config.out)
    print(config.out)


@exact_float32()
def measure(config: MeasureConfig) -> None:
    """Print displacement over spread of both backbones, and their ratio."""
    check_device(config.device)
    normal = default_class(config.data, config.normal_class)
    robust, standard = load_backbone(config.robust), load_backbone(config.standard)
    split = load_data(
        config.data,
        normal_class=normal,
        resolution=config.resolution,
        channels=1 if 1 in (robust.channels, standard.channels) else None,
        seed=config.seed,
        limit=config.images,
    )
    images = split.test.images.to(config.device)

    def displacement(backbone: Backbone) -> float:
        found = feature_displacement(
            backbone.to(config.device), images, config.norm, config.eps, config.steps, seed=config.seed
        )
        return found.relative

    moved = {"robust": displacement(robust), "standard": displacement(standard)}
    if moved["robust"] == 0:
        raise InputError("--eps: the attack moved no feature; give a size above 0")
    ratio = moved["standard"] / moved["robust"]
    verdict = ratio > ROBUST_RATIO
    if config.json:
        threat = {"norm": config.norm, "eps": config.eps, "steps": config.steps, "images": len(images)}
        print(json.dumps({"displacement": moved, "ratio": ratio, "robust": verdict, **threat}))
        return
    for name, folder in (("robust", config.robust), ("standard", config.standard)):
        print(f"{moved[name]:8.4f}  displacement over spread, {name}: {folder}")
    print(
        f"{ratio:8.4f}  times as far: {'' if verdict else 'not '}robust by this measure (more than {ROBUST_RATIO:g})"
    )


def converted(config: ConvertConfig) -> None:
    """Convert a file and print the folder."""
    convert(config)
    print(config.out)


# first word -> (its options, what runs, what follows the word in the usage)
ACTIONS: dict[str, tuple[type[Any], Callable[[Any], None], str]] = {
    "convert": (ConvertConfig, converted, "FILE OUT"),
    "linear": (LinearConfig, linear, "OUT"),
    "measure": (MeasureConfig, measure, "ROBUST STANDARD"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one action; return the exit code."""
    words = list(sys.argv[2:] if argv is None else argv)
    if words in (["-h"], ["--help"]):
        print(usage())
        return console.DONE
    if words[:1] == [] or words[0] not in ACTIONS:
        given = repr(words[0]) if words else "nothing"
        console.say(f"error: diffad backbones: got {given}; allowed are {', '.join(ACTIONS)}")
        return console.USAGE
    options, action, _ = ACTIONS[words[0]]

    def command() -> None:
        prog = f"diffad backbones {words[0]}"
        action(tyro.cli(options, prog=prog, args=words[1:], use_underscores=True))

    return console.run(command)


def usage() -> str:
    """Help text: the actions, a line each."""
    lines = [
        f"  {name} {follows:<16}{str(options.__doc__).splitlines()[0]}"
        for name, (options, _, follows) in ACTIONS.items()
    ]
    head = "usage: diffad backbones ACTION ... (diffad backbones ACTION --help lists the options of one)"
    return "\n".join([head, "", *lines])


if __name__ == "__main__":
    sys.exit(main())
