"""Randomized smoothing of a classifier: `python paper_repro/cohen2019/run.py --preset cpu`.

A small network is trained with Gaussian noise on scikit-learn's digits, ten classes at 16 x 16, certified with the
engine of this toolkit as Cohen, Rosenfeld and Kolter (2019) certify theirs, and attacked. The question is whether the
engine, built for scores, shows what is known of classifiers: more noise costs accuracy and buys radius, the radius ends
at what n draws can prove, and no attack breaks a certified image. Every noise level is kept in a file of its own with
what decides it; a repeated call does what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from common.classifiers import train_classifier
from common.levels import Budget, Level, measured, print_results, recorded

from certify.console import run as run_command
from diffad.backbones.labelled import load_labelled

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Preset:
    """Noise levels, training steps, and the budget of certificate and attack."""

    sigmas: tuple[float, ...]
    steps: int
    budget: Budget


PRESETS = {
    "smoke": Preset((0.25,), 30, Budget(10, 50, 100, (0.25,), 2, 2)),
    "cpu": Preset((0.12, 0.25, 0.5), 1500, Budget(100, 100, 1000, (0.25, 0.5), 20, 8)),
}


def level(preset: Preset, sigma: float) -> Level:
    """Train, certify and attack at one noise level."""
    split = load_labelled("digits", seed=preset.budget.seed)
    amount = {"steps": preset.steps, "seed": preset.budget.seed}
    network = train_classifier(split.train, len(split.classes), sigma=sigma, **amount)
    return measured(f"sigma {sigma:g}", network, split, sigma, preset.budget)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="smoke")
    parser.add_argument("--output", type=Path, help="default: results/PRESET beside this script")
    parser.add_argument("--again", action="store_true", help="measure also what is recorded")
    options = parser.parse_args(argv)
    preset = PRESETS[options.preset]
    folder = options.output or HERE / "results" / options.preset

    def work() -> None:
        for sigma in preset.sigmas:
            wanted = {**asdict(preset), "sigma": sigma}
            compute = partial(level, preset, sigma)
            recorded(folder, f"sigma-{sigma:g}", wanted, compute, again=options.again)
        print_results(folder, [f"sigma-{sigma:g}" for sigma in preset.sigmas])

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
