"""ATD's experiments: `python paper_repro/atd/run.py --preset cpu --only digits --jobs 2`.

ATD beside the scores of the classifiers whose features it reads, robust and standard, under the ensemble attack; ATD
with one thing changed; images that transfer from the other detectors. Every AUROC is the unweighted mean over outlier
sets. Every step is a command of the toolkit with a folder of its own; a step that is complete is skipped, so the same
command resumes. Ends with `results/PRESET/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from chains import all_chains
from common.script import Stage, add_schedule, chosen, run_script
from figures import draw_figures
from plan import Plan
from presets import EXPERIMENTS, EXTRACTORS, PRESETS
from report import write_results

from certify.checks import InputError

HERE = Path(__file__).parent
PLACES = ("cifar10", "mnist", "fashion_mnist", "svhn")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS), default="smoke")
    for name in PLACES:
        add(f"--{name}", default=name, metavar="DATA", help=f"--data of {name}, by default downloaded")
    add("--tile", metavar="DATA", help="magnetic tiles as an outlier set, mvtec:DIR; default: left out")
    for kind in EXTRACTORS:
        add(
            f"--{kind}",
            nargs="+",
            default=(),
            metavar="DIR",
            help=f"{kind} backbones of CIFAR-10, one a seed",
        )
    add("--only", nargs="+", metavar="NAME", help="problems of the preset, and of " + ", ".join(EXPERIMENTS))
    add("--seeds", type=int, nargs="+", help="default: those of the preset")
    add("--limit", type=int, help="test images of each set; default: that of the preset")
    add("--steps", type=int, help="of each attack; default: those of the preset")
    add("--eps", help="Linf radius of every problem, such as 8/255; default: that of the problem")
    add("--device", default="cpu", help="of trainings and attacks")
    add_schedule(parser, Path("runs/atd-experiments"))
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what the command line asks for.

    Raises:
        InputError: names in --only that the preset has not; a problem whose backbones are not given.
    """
    preset = PRESETS[options.preset]
    asked = {name: getattr(options, name) for name in ("limit", "steps")}
    preset = replace(preset, **{name: value for name, value in asked.items() if value is not None})
    names, experiments = chosen(options.only, list(preset.problems), EXPERIMENTS)
    problems = {}
    for name in names:
        problem = preset.problems[name]
        kept = tuple(one for one in problem.outliers if one != "{tile}" or options.tile)
        problems[name] = replace(problem, outliers=kept, eps=options.eps or problem.eps)
        missing = [kind for kind in EXTRACTORS if problem.backbone is None and not getattr(options, kind)]
        if missing:
            raise InputError(
                f"--{missing[0]}: {name} reads trained networks; give folders (configs/backbones/cifar10_fgsm_rs.yaml, "
                "or diffad backbones convert), or leave the problem out with --only"
            )
    return Plan(
        preset,
        problems,
        tuple(experiments),
        tuple(options.seeds or preset.seeds),
        {name: getattr(options, name) for name in (*PLACES, "tile")},
        {kind: tuple(getattr(options, kind)) for kind in EXTRACTORS},
        options.runs / options.preset,
        options.device,
    )


def stages(plan: Plan, _options: argparse.Namespace, _output: Path) -> list[Stage]:
    """Return all chains at once: none depends on what others choose."""
    return [lambda: all_chains(plan)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    return run_script(argv, parse, plan_of, stages, HERE / "results", write_results, draw_figures)


if __name__ == "__main__":
    sys.exit(main())
