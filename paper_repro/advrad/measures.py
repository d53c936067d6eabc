"""A trained network behind other options of the diffusion detector, with the statistics of normals made anew."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from certify.checks import InputError
from certify.console import run as run_command
from diffad import load_detector
from diffad.data import load_data
from diffad.diffusion.detector import DiffusionDetector


def variant(options: argparse.Namespace) -> None:
    """Write the folder of a detector that differs in the options given.

    `--no_train_mean` puts zero in the place of the mean error of normals, which the scores of a map subtract.
    """
    network = load_detector(options.network)
    if not isinstance(network, DiffusionDetector):
        raise InputError(f"--network: {options.network} holds a {network.name}, need a diffusion detector")
    asked = {"sigma": options.sigma, "score_name": options.score, "shots": options.shots}
    asked["scales"] = tuple(options.scales) if options.scales else None
    detector = network.with_options(**{name: value for name, value in asked.items() if value is not None})
    place = {
        "normal_class": options.normal_class,
        "resolution": options.resolution,
        "seed": options.data_seed,
    }
    split = load_data(options.data, **{name: value for name, value in place.items() if value is not None})
    detector.fit_statistics(split.train.images, [detector.sigma])
    if options.no_train_mean:
        detector.mean_error_ = torch.zeros_like(detector.mean_error_)
        detector.mean_root_ = torch.zeros_like(detector.mean_root_)
    detector.save_pretrained(options.output_dir)


def main(argv: Sequence[str]) -> int:
    """Run one measurement; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("variant")
    one.add_argument("--network", type=Path, required=True, help="folder of the trained diffusion detector")
    one.add_argument("--data", required=True)
    one.add_argument("--normal_class")
    one.add_argument("--resolution", type=int)
    one.add_argument("--data_seed", type=int, default=0)
    one.add_argument("--sigma", type=float, help="noise of the detector, [0, 1] pixel units")
    one.add_argument("--score", help="score of the residual")
    one.add_argument("--shots", type=int, help="network calls of a reconstruction")
    one.add_argument("--scales", type=int, nargs="+", help="of the error map")
    one.add_argument("--no_train_mean", action="store_true", help="subtract nothing from the error map")
    one.add_argument("--output_dir", type=Path, required=True)
    options = parser.parse_args(argv)
    return run_command(lambda: variant(options))
