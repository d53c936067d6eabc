"""ZARND's experiments: `python paper_repro/zarnd/run.py --preset cpu --cifar10 folder:DIR --mnist folder:DIR`.

Backbones are trained on one data set and compare images of others, never seen: standard against robust weights under
attack and certificate, the curve over the radius, the number of neighbours, and the surrogate of the published attack.
Every step is a command of the toolkit with a run folder of its own; a step that is complete is skipped, so the same
command resumes. Ends with `results/PRESET/`: `table.md`, `summary.json`, figures and the runs that they are made of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from chains import all_chains
from common.script import Stage, add_schedule, run_script
from figures import draw_figures
from plan import Plan
from presets import KINDS, PRESETS, PUBLISHED, paper_preset
from report import write_results

from certify.checks import InputError
from diffad.attacks.checks import LEVELS
from diffad.backbones.containers import sha256
from diffad.data.torchvision_sets import SETS

HERE = Path(__file__).parent
SOURCE = (
    "https://huggingface.co/madrylab/robust-imagenet-models has resnet18_linf_eps4.0.ckpt and, as its standard twin, "
    "resnet18_l2_eps0.ckpt"
)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", choices=(*PRESETS, "paper"), default="smoke")
    add("--cifar10", default="cifar10", help="--data of CIFAR-10, which the backbones are trained on")
    add("--mnist", default="mnist", help="--data of MNIST")
    add("--tile", default="mvtec:data/magnetic_tile", help="--data of the magnetic tiles")
    add(
        "--only", nargs="+", metavar="SET", help="test sets to run, and `scaling`; default: all of the preset"
    )
    add("--seeds", type=int, nargs="+", help="default: those of the preset")
    add("--limit", type=int, help="test images of each label; default: that of the preset")
    add("--steps", type=int, help="of each attack; default: those of the preset")
    add("--checks", choices=("none", *LEVELS), default="small", help="sanity checks of the ensemble")
    add("--certify_n", type=int, help="noise draws of a certificate; default: those of the preset")
    add("--device", default="cpu", help="of trainings and certificates; digits stay on the CPU")
    add(
        "--attack_device",
        help="of the attacks on narrow networks, which a GPU does not pay for; default: --device",
    )
    add_schedule(parser, Path("runs/zarnd"))
    paper = parser.add_argument_group("preset paper: a robust ResNet-18 and its standard twin")
    for kind in KINDS:
        paper.add_argument(
            f"--{kind}_checkpoint", type=Path, metavar="FILE", help="published; converted once"
        )
        paper.add_argument(f"--{kind}", type=Path, metavar="FOLDER", help="or converted or trained before")
    paper.add_argument(
        "--trust_pickle", nargs="+", default=[], metavar="SHA256", help="of checkpoints that are pickles"
    )
    paper.add_argument(
        "--attack_resolution", type=int, help="side of the attacked images; default: 32, 28, 224 (MVTec)"
    )
    paper.add_argument("--mvtec", type=Path, help="folder of the categories of MVTec AD")
    paper.add_argument("--cifar100", default="cifar100", help="--data of CIFAR-100")
    paper.add_argument("--fashion_mnist", default="fashion_mnist", help="--data of Fashion-MNIST")
    paper.add_argument(
        "--classes", nargs="+", metavar="CLASS", help="normal classes; default: all of each set"
    )
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what the command line asks for.

    Raises:
        InputError: unknown sets; the preset paper without its two networks.
    """
    runs = options.runs / options.preset
    devices = {"device": options.device, "attack_device": options.attack_device or options.device}
    places = {"cifar10": options.cifar10, "mnist": options.mnist, "tile": options.tile}
    networks: dict[str, Path] = {}
    files: dict[str, tuple[str, ...]] = {}
    if options.preset == "paper":
        networks, files = networks_of(options)
        places |= {"cifar100": options.cifar100, "fashion_mnist": options.fashion_mnist}
        classes = {name: tuple(options.classes or dict.fromkeys(SETS[name].classes)) for name in PUBLISHED}
        preset = paper_preset(classes, options.mvtec, options.attack_resolution)
    else:
        preset = PRESETS[options.preset]
    asked = {name: getattr(options, name) for name in ("limit", "steps", "certify_n")}
    preset = replace(preset, **{name: value for name, value in asked.items() if value is not None})
    allowed = [*preset.sets, *(["scaling"] if preset.scaling else [])]
    names = [name for asked in options.only or allowed for name in matching(asked, allowed)]
    seeds = tuple(options.seeds or preset.seeds)
    given = {"networks": networks, "files": files, "checks": options.checks, **devices}
    return Plan(preset, tuple(names), seeds, places, runs, **given)


def matching(asked: str, allowed: Sequence[str]) -> list[str]:
    """Return the set of this name, or all whose name starts with it and a hyphen (`cifar10` for `cifar10-cat`)."""
    found = [name for name in allowed if name == asked or name.startswith(f"{asked}-")]
    if not found:
        raise InputError(f"--only: unknown {asked}; allowed are {', '.join(allowed)}")
    return found


def networks_of(options: argparse.Namespace) -> tuple[dict[str, Path], dict[str, tuple[str, ...]]]:
    """Return by kind folders of backbones, or else checkpoints with their SHA-256 where they are trusted pickles."""
    folders: dict[str, Path] = {}
    files: dict[str, tuple[str, ...]] = {}
    for kind in KINDS:
        folder, file = getattr(options, kind), getattr(options, f"{kind}_checkpoint")
        if folder is not None:
            if not (folder / "config.json").is_file():
                raise InputError(
                    f"--{kind}: {folder} holds no backbone; need a folder written by `diffad backbones convert`"
                )
            folders[kind] = folder
        elif file is None or not file.is_file():
            given = "nothing" if file is None else f"{file}, which is no file"
            raise InputError(
                f"--{kind}_checkpoint: got {given}; {SOURCE}; or give the folder of a backbone by --{kind}"
            )
        else:
            trusted = {word.lower() for word in options.trust_pickle} & {sha256(file)}
            files[kind] = (str(file), *trusted)
    return folders, files


def stages(plan: Plan, _options: argparse.Namespace, _output: Path) -> list[Stage]:
    """Return all chains at once: none depends on what others choose."""
    return [lambda: all_chains(plan)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    return run_script(argv, parse, plan_of, stages, HERE / "results", write_results, draw_figures)


if __name__ == "__main__":
    sys.exit(main())
