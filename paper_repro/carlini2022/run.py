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
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from common.classifiers import Logits, train_classifier
from common.levels import Budget, Level, measured, print_results, recorded
from common.steps import Step

from certify.console import run as run_command
from diffad import load_detector
from diffad.backbones.labelled import LabelledSplit, load_labelled

HERE = Path(__file__).parent
ROWS = ("plain", "denoised", "noise-trained")
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
    "cpu": Preset((0.25, 0.5, 1.0), 1500, 1500, Budget(60, 100, 1000, (0.25, 0.5), 10, 4)),
}


def train_denoiser(preset: Preset, runs: Path) -> Path:
    """Train the diffusion model unless it is there; return its folder."""
    folder = runs / "denoiser"
    argv = (*UNLABELLED, *NETWORK, *NOISE, "--seed", str(preset.budget.seed))
    amount = (
        "--max_train_steps",
        str(preset.diffusion_steps),
        "--lr_warmup_steps",
        "5",
        "--select_images",
        "10",
    )
    Step("denoiser", "ddpm", (*argv, *amount, *RATE, "--output_dir", str(folder)), runs / "done").run()
    return folder


def logits_of(preset: Preset, split: LabelledSplit, row: str, sigma: float, runs: Path) -> Logits:
    """Return what is smoothed, from noisy images to logits; the denoiser is trained once it is needed."""
    amount = {"steps": preset.steps, "seed": preset.budget.seed}
    own = sigma if row == "noise-trained" else 0.0
    network = train_classifier(split.train, len(split.classes), sigma=own, **amount)
    if row != "denoised":
        return network
    diffusion: Any = load_detector(train_denoiser(preset, runs))
    return lambda noisy: network(diffusion.reconstruct(noisy, sigma))


def level(preset: Preset, row: str, sigma: float, runs: Path) -> Level:
    """Certify and attack one row at one noise level."""
    split = load_labelled("digits", seed=preset.budget.seed)
    logits = logits_of(preset, split, row, sigma, runs)
    return measured(f"{row}, sigma {sigma:g}", logits, split, sigma, preset.budget)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), default="smoke")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/carlini2022"), help="folder of the diffusion model"
    )
    parser.add_argument("--output", type=Path, help="default: results/PRESET beside this script")
    parser.add_argument("--again", action="store_true", help="measure also what is recorded")
    options = parser.parse_args(argv)
    preset = PRESETS[options.preset]
    folder = options.output or HERE / "results" / options.preset

    def work() -> None:
        runs = options.runs / options.preset
        names = []
        for sigma in preset.sigmas:
            for row in ROWS:
                wanted = {**asdict(preset), "row": row, "sigma": sigma}
                names.append(f"{row}-{sigma:g}")
                compute = partial(level, preset, row, sigma, runs)
                recorded(folder, names[-1], wanted, compute, again=options.again)
        print_results(folder, names)

    return run_command(work)


if __name__ == "__main__":
    sys.exit(main())
