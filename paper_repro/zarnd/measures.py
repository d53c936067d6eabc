"""Measurements beside the commands of the toolkit: how far an attack moves features, and time against the bank."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from certify.console import run as run_command
from certify.files import write_json
from diffad.attacks.threat import ThreatModel
from diffad.backbones import load_backbone
from diffad.backbones.displacement import feature_displacement
from diffad.data import load_data

ROOT = Path(__file__).parents[2]
STEPS, IMAGES = 50, 64


def displacement(options: argparse.Namespace) -> None:
    """Write how far PGD moves the features of test images, robust weights and standard ones, and the ratio."""
    split = load_data(
        options.data, normal_class=options.normal_class, resolution=options.resolution, limit=IMAGES // 2
    )
    found: dict[str, object] = {
        "data": split.name,
        "norm": "linf",
        "eps": ThreatModel.parse("linf", options.eps).eps,
    }
    relative, images = {}, split.test.images.to(options.device)
    for kind in ("standard", "robust"):
        network = load_backbone(getattr(options, kind)).eval().requires_grad_(False).to(options.device)
        moved = feature_displacement(network, images, "linf", options.eps, STEPS)
        relative[kind] = moved.relative
        found[kind] = {
            "relative": moved.relative,
            "mean": float(moved.distances.mean()),
            "spread": moved.spread,
        }
    found |= {"ratio": relative["standard"] / relative["robust"], "images": len(split.test), "steps": STEPS}
    write_json(options.output, found)


def scaling(options: argparse.Namespace) -> None:
    """Write time and peak memory of the neighbour search for banks of several sizes, each in a process of its own."""
    script = ROOT / "benchmarks" / "nearest_neighbours.py"
    banks = [str(size) for size in options.banks]
    words = [
        "--banks",
        *banks,
        "--bank",
        banks[-1],
        "--repeats",
        "3",
        "--threads",
        str(torch.get_num_threads()),
    ]
    subprocess.run(
        [sys.executable, str(script), *words, "--output", str(options.output)], check=True, stdout=sys.stderr
    )


def main(argv: Sequence[str]) -> int:
    """Run one measurement; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    moved = kinds.add_parser("displacement")
    moved.set_defaults(measure=displacement)
    moved.add_argument("--data", required=True)
    moved.add_argument("--normal_class")
    moved.add_argument("--resolution", type=int)
    moved.add_argument("--eps", required=True)
    moved.add_argument("--device", default="cpu")
    moved.add_argument("--standard", required=True)
    moved.add_argument("--robust", required=True)
    growth = kinds.add_parser("scaling")
    growth.set_defaults(measure=scaling)
    growth.add_argument("--banks", type=int, nargs="+", required=True)
    for one in (moved, growth):
        one.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    return run_command(lambda: options.measure(options))
