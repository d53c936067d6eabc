"""Diffusion-denoised smoothing of a classifier: `python paper_repro/carlini2022/run.py --preset cpu`.

A classifier that has never seen noise is put behind one denoising step of a diffusion model and certified as Cohen et
al. certify theirs; Carlini, Tramer et al. (2022) do so with off-the-shelf networks. Three rows at each noise level:
that classifier alone under noise, behind the denoiser, and one trained with noise. Scikit-learn's digits, ten classes
at 16 x 16; the diffusion model is trained on the same images first, without labels. What is complete is not run again.
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
from common.steps import Chain, Step

HERE = Path(__file__).parent
ROWS, DENOISER = ("plain", "denoised", "noise-trained"), "denoiser"
# every digit is normal; the data set needs something else to be anomalous, which a denoiser never sees
UNLABELLED = ("--data", "digits", "--protocol", "unlabeled_multiclass", "--outliers", "textures")
NETWORK = ("--space_to_depth", "2", "--block_out_channels", "64", "128", "--prediction_type", "v_prediction")
NOISE = ("--min_sigma", "0.1", "--max_sigma", "4.0")
RATE = ("--learning_rate", "2e-3", "--ema_max_decay", "0.999", "--train_batch_size", "64")


@dataclass(frozen=True)
class Preset:
    """Noise levels, steps of both trainings, and the budget of certificate and attack."""

    sigmas: tuple[float, ...]
    steps: int
    diffusion_steps: int
    budget: Budget


PRESETS = {
    "smoke": Preset((0.25,), 30, 10, Budget(6, 50, 100, (0.25,), 2, 2)),
    "cpu": Preset((0.25, 0.5, 1.0), 1500, 1500, Budget(50, 100, 1000, (0.25, 0.5), 10, 4)),
}


@dataclass(frozen=True)
class Plan:
    """A preset and the folder of its steps."""

    preset: Preset
    runs: Path

    def chains(self) -> list[Chain]:
        """Return the diffusion model, then the rows of each noise level."""
        return [Chain(DENOISER, (self.training(),)), *self.levels()]

    def levels(self) -> list[Chain]:
        """Return a chain a row and noise level."""
        preset = self.preset
        shared = {"steps": preset.steps, "diffusion_steps": preset.diffusion_steps}
        chains = []
        for sigma in preset.sigmas:
            for row in ROWS:
                name = f"{row}-{sigma:g}"
                options = {**shared, "budget": asdict(preset.budget), "row": row, "sigma": sigma}
                needs = (DENOISER,) if row == "denoised" else ()
                chains.append(Chain(name, (level_step(name, options, self.runs),), needs))
        return chains

    def training(self) -> Step:
        """Return the training of the diffusion model."""
        amount = ("--max_train_steps", str(self.preset.diffusion_steps), "--lr_warmup_steps", "5")
        rest = ("--select_images", "10", *RATE, "--output_dir", str(self.runs / DENOISER))
        argv = (*UNLABELLED, *NETWORK, *NOISE, "--seed", str(self.preset.budget.seed), *amount, *rest)
        return Step(DENOISER, "ddpm", argv, self.runs / "done")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    return parse_levels(argv, __doc__, tuple(PRESETS), Path("runs/carlini2022"))


def plan_of(options: argparse.Namespace) -> Plan:
    """Return what the command line asks for."""
    return Plan(PRESETS[options.preset], options.runs / options.preset)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    return run_levels(argv, parse, plan_of, HERE / "results")


if __name__ == "__main__":
    sys.exit(main())
