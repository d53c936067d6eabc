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
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from common.classifiers import attacked_accuracy, certify_classifier, train_classifier
from common.levels import Level, print_results, recorded

from certify.console import run as run_command
from diffad.backbones.labelled import load_labelled

HERE = Path(__file__).parent
RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Preset:
    """How much: noise levels, training steps, test images, draws, and the budget of the attack at each radius."""

    sigmas: tuple[float, ...]
    steps: int
    limit: int
    n0: int
    n: int
    attacked: tuple[float, ...]
    attack_steps: int
    eot: int
    alpha: float = 0.001
    seed: int = 0


PRESETS = {
    "smoke": Preset((0.25,), 30, 10, 50, 100, (0.25,), 2, 2),
    "cpu": Preset((0.12, 0.25, 0.5), 1500, 100, 100, 1000, (0.25, 0.5), 20, 8),
}


def level(preset: Preset, sigma: float) -> Level:
    """Train, certify and attack at one noise level."""
    split = load_labelled("digits", seed=preset.seed)
    test = split.test.first(preset.limit)
    network = train_classifier(
        split.train, len(split.classes), sigma=sigma, steps=preset.steps, seed=preset.seed
    )
    options: dict[str, Any] = {"sigma": sigma, "seed": preset.seed, "batch_size": min(250, preset.n)}
    certified = certify_classifier(
        network, test.images, n0=preset.n0, n=preset.n, alpha=preset.alpha, **options
    )
    budget = {"steps": preset.attack_steps, "eot": preset.eot, "n": preset.n}
    attacked = {
        radius: attacked_accuracy(
            network, test.images, test.labels, certified, eps=radius, **budget, **options
        )
        for radius in preset.attacked
    }
    return Level(
        name=f"sigma {sigma:g}",
        certified=dict(zip(RADII, certified.accuracy(test.labels, RADII), strict=True)),
        attacked={radius: accuracy for radius, (accuracy, _) in attacked.items()},
        broken=sum(broken for _, broken in attacked.values()),
        images=len(test),
        data=split.fingerprint(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="smoke")
    parser.add_argument("--output", type=Path, help="default: results/PRESET beside this script")
    options = parser.parse_args(argv)
    preset = PRESETS[options.preset]
    folder = options.output or HERE / "results" / options.preset

    def work() -> None:
        for sigma in preset.sigmas:
            wanted = {**asdict(preset), "sigma": sigma}
            recorded(folder, f"sigma-{sigma:g}", wanted, partial(level, preset, sigma))
        print_results(folder, [f"sigma-{sigma:g}" for sigma in preset.sigmas], RADII)

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
