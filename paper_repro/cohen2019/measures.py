"""One noise level: a classifier trained with noise, certified and attacked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.classifiers import train_classifier
from common.levels import Budget, Level, measure, measured

from diffad.backbones.labelled import load_labelled


def level(options: dict[str, Any], _runs: Path) -> Level:
    """Train, certify and attack at one noise level."""
    budget, sigma = Budget(**options["budget"]), options["sigma"]
    split = load_labelled("digits", seed=budget.seed)
    amount = {"steps": options["steps"], "seed": budget.seed}
    network = train_classifier(split.train, len(split.classes), sigma=sigma, **amount)
    return measured(f"sigma {sigma:g}", network, split, sigma, budget)


def main(argv: Sequence[str]) -> int:
    """Run one measurement; return its exit code."""
    return measure(argv, level)
