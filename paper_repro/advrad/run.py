"""The diffusion detector's experiments: `python paper_repro/advrad/run.py --preset cpu --jobs 2`.

AdvRAD, one-shot reconstruction by a diffusion model, beside detectors that know no attacker, under the ensemble attack;
the detector with one thing changed (step, shots, scales, score, train mean); attacks that average over its noise; its
certificates in every way against the radius, and an attack on the very score that is certified. Every step is a command
of the toolkit with a folder of its own; a step that is complete is skipped, so the same command resumes. Ends with
`results/PRESET/`.
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
from presets import EXPERIMENTS, PRESETS
from report import write_results

HERE = Path(__file__).parent
PLACES = {"cifar10": "cifar10", "mnist": "mnist", "tile": "mvtec:data/magnetic_tile"}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", choices=tuple(PRESETS), default="smoke")
    for name, place in PLACES.items():
        add(f"--{name}", default=place, metavar="DATA", help=f"--data of it, default {place}")
    add("--only", nargs="+", metavar="NAME", help="problems of the preset, and of " + ", ".join(EXPERIMENTS))
    add("--seeds", type=int, nargs="+", help="default: those of the preset")
    add("--limit", type=int, help="test images of each label; default: that of the preset")
    add("--steps", type=int, help="of each attack; default: those of the preset")
    add("--n", type=int, help="noise draws of a certificate; default: those of the preset")
    add("--device", default="cpu", help="of attacks and certificates")
    add_schedule(parser, Path("runs/advrad-experiments"))
    return parser.parse_args(argv)


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what the command line asks for.

    Raises:
        InputError: names in --only that the preset has not.
    """
    preset = PRESETS[options.preset]
    asked = {name: getattr(options, name) for name in ("limit", "steps", "n")}
    preset = replace(preset, **{name: value for name, value in asked.items() if value is not None})
    names, experiments = chosen(options.only, list(preset.problems), EXPERIMENTS)
    return Plan(
        preset,
        {name: preset.problems[name] for name in names},
        tuple(experiments),
        tuple(options.seeds or preset.seeds),
        {name: getattr(options, name) for name in PLACES},
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
