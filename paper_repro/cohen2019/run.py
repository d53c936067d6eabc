"""Randomized smoothing of a classifier: `python paper_repro/cohen2019/run.py --preset cpu`.

A small network is trained with Gaussian noise on scikit-learn's digits, ten classes at 16 x 16, certified with the
engine of this toolkit as Cohen, Rosenfeld and Kolter (2019) certify theirs, and attacked. The question is whether the
engine, built for scores, shows what is known of classifiers: more noise costs accuracy and buys radius, the radius ends
at what n draws can prove, and no attack breaks a certified image. Every noise level is a step of its own; a repeated
call does what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from common.level_script import parse_levels, run_levels
from common.levels import Budget, level_step
from common.steps import Chain

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


@dataclass(frozen=True)
class Plan:
    """A preset and the folder of its steps."""

    preset: Preset
    runs: Path

    def chains(self) -> list[Chain]:
        """Return all that is run: the levels."""
        return self.levels()

    def levels(self) -> list[Chain]:
        """Return a chain a noise level."""
        shared = {"steps": self.preset.steps, "budget": asdict(self.preset.budget)}
        options = {f"sigma-{sigma:g}": {**shared, "sigma": sigma} for sigma in self.preset.sigmas}
        return [Chain(name, (level_step(name, one, self.runs),)) for name, one in options.items()]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    return parse_levels(argv, __doc__, tuple(PRESETS), Path("runs/cohen2019"))


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what the command line asks for."""
    return Plan(PRESETS[options.preset], options.runs / options.preset)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    return run_levels(argv, parse, plan_of, HERE / "results")


if __name__ == "__main__":
    sys.exit(main())
