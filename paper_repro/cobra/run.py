"""COBRA's experiments: `python paper_repro/cobra/run.py --preset cpu --only digits --jobs 2`.

COBRA trained against an attacker beside its clean-trained twin, under the ensemble attack and certified; the loss, the
filter, the crafting and the score taken apart; the curve over the radius. The Linf radius of a problem is the smallest
at which clean twins on *another* normal class have collapsed, and is recorded. Every step is a command of the toolkit
with a folder of its own; a step that is complete is skipped, so the same command resumes. Ends with `results/PRESET/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from chains import first_stage, second_stage
from common.script import Stage, add_schedule, run_script
from common.steps import Chain
from figures import draw_figures
from plan import Plan
from presets import EXPERIMENTS, PRESETS, Problem, paper_preset
from report import restore_choices, write_results

from certify.checks import InputError
from diffad.data.torchvision_sets import SETS

HERE = Path(__file__).parent


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", choices=(*PRESETS, "paper"), default="smoke")
    for name in SETS:
        add(f"--{name}", default=name, metavar="DATA", help=f"--data of {name}, by default downloaded")
    add("--outliers", default="fashion_mnist", metavar="DATA", help="beside unlabelled MNIST; preset cpu")
    add(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"problems of the preset, and experiments ({', '.join(EXPERIMENTS)}); default: all; the main "
        "rows of a problem are always made",
    )
    add("--seeds", type=int, nargs="+", help="default: those of the preset")
    add("--limit", type=int, help="test images of each label; default: that of the preset")
    add("--steps", type=int, help="of each attack; default: those of the preset")
    add("--certify_n", type=int, help="noise draws of a certificate; default: those of the preset")
    add("--eps", help="Linf radius of every problem, such as 8/255; default: chosen, or published")
    add("--device", default="cpu", help="of trainings, attacks and certificates")
    add_schedule(parser, Path("runs/cobra-experiments"))
    paper = parser.add_argument_group("preset paper")
    paper.add_argument("--mvtec", type=Path, help="folder of the categories of MVTec AD")
    paper.add_argument(
        "--classes", nargs="+", metavar="CLASS", help="normal classes; default: all of each set"
    )
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what the command line asks for.

    Raises:
        InputError: names in --only that the preset has not.
    """
    published = options.preset == "paper"
    preset = paper_preset(options.mvtec, options.classes) if published else PRESETS[options.preset]
    asked = {name: getattr(options, name) for name in ("limit", "steps", "certify_n")}
    preset = replace(preset, **{name: value for name, value in asked.items() if value is not None})
    problems, experiments = selected(options.only or (), preset.problems)
    return Plan(
        preset,
        problems,
        experiments,
        tuple(options.seeds or preset.seeds),
        {name: getattr(options, name) for name in (*SETS, "outliers")},
        options.runs / options.preset,
        options.device,
        options.eps,
    )


def selected(
    asked: Sequence[str], problems: dict[str, Problem]
) -> tuple[dict[str, Problem], tuple[str, ...]]:
    """Return the problems and experiments of --only; of a kind that is not named, all.

    `cifar10` names every problem that starts so, `cifar10-cat`.
    """
    experiments = tuple(name for name in EXPERIMENTS if name in asked)
    names: list[str] = []
    for word in asked:
        found = [name for name in problems if name == word or name.startswith(f"{word}-")]
        if not found and word not in EXPERIMENTS:
            allowed = ", ".join((*problems, *EXPERIMENTS))
            raise InputError(f"--only: unknown {word}; allowed are {allowed}")
        names += found
    chosen = {name: problems[name] for name in dict.fromkeys(names)} if names else problems
    return chosen, experiments or EXPERIMENTS


def stages(plan: Plan, options: argparse.Namespace, output: Path) -> list[Stage]:
    """Return first the chains that choose the radii, then all."""

    def everything() -> list[Chain]:
        if not options.again:
            restore_choices(plan, output)
        return [*first_stage(plan), *second_stage(plan)]

    return [lambda: first_stage(plan), everything]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    return run_script(argv, parse, plan_of, stages, HERE / "results", write_results, draw_figures)


if __name__ == "__main__":
    sys.exit(main())
