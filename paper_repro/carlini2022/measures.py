"""One row at one noise level: a classifier alone or behind the diffusion model, certified and attacked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from common.classifiers import Logits, train_classifier
from common.levels import Budget, Level, measure, measured

from certify.checks import InputError
from diffad import load_detector
from diffad.backbones.labelled import LabelledSplit, load_labelled
from diffad.diffusion.detector import DiffusionDetector


def level(options: dict[str, Any], runs: Path) -> Level:
    """Certify and attack one row at one noise level."""
    budget, row, sigma = Budget(**options["budget"]), options["row"], options["sigma"]
    classifier = trained(sigma if row == "noise-trained" else 0.0, options["steps"], budget.seed)
    logits = behind(runs / "denoiser", classifier, sigma) if row == "denoised" else classifier
    return measured(f"{row}, sigma {sigma:g}", logits, split_of(budget.seed), sigma, budget)


@cache
def split_of(seed: int) -> LabelledSplit:
    """Return the digits with their classes."""
    return load_labelled("digits", seed=seed)


@cache  # the classifier that has seen no noise is that of most rows
def trained(sigma: float, steps: int, seed: int) -> Logits:
    """Return a classifier trained with this noise; 0: with none."""
    split = split_of(seed)
    return train_classifier(split.train, len(split.classes), sigma=sigma, steps=steps, seed=seed)


def behind(folder: Path, classifier: Logits, sigma: float) -> Logits:
    """Return the logits of what the diffusion model in a folder makes of noisy images in one step.

    Raises:
        InputError: the folder holds another detector.
    """
    diffusion = load_detector(folder)
    if not isinstance(diffusion, DiffusionDetector):
        raise InputError(
            f"{folder} holds a {diffusion.name}, need a diffusion detector; remove it and run again"
        )
    return lambda noisy: classifier(diffusion.reconstruct(noisy, sigma))


def main(argv: Sequence[str]) -> int:
    """Run one measurement; return its exit code."""
    return measure(argv, level)
