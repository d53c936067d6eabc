"""What is saved where the draws of a diffusion detector share a network call: `draws_together.py --network DIR`.

The detector's score, which takes as many draws a call as `diffad.attacks.reconstruction` allows, and the same mean with
a call for each draw take turns, with and without a gradient. Ratios of the medians of processor time of one thread, so
that other work on the machine does not count; above 1: together is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diffad import load_detector
from diffad.diffusion.detector import DiffusionDetector

Score = Callable[[Tensor], Tensor]


def one_by_one(detector: DiffusionDetector) -> Score:
    """Return the score as the mean of one call for each draw."""
    return lambda images: torch.stack([detector.score(images, e[None]) for e in detector.noise_]).mean(0)


def ratio(together: Score, alone: Score, images: Tensor, repeats: int, gradient: bool) -> float:
    """Return the median time of `alone` by that of `together`; a pair is timed one after the other."""

    def seconds(score: Score) -> float:
        leaf = images.clone().requires_grad_(gradient)
        start = time.process_time()
        with torch.set_grad_enabled(gradient):
            total = score(leaf).sum()
        if gradient:
            torch.autograd.grad(total, leaf)
        return time.process_time() - start

    pairs = [(seconds(alone), seconds(together)) for _ in range(repeats + 1)][1:]  # the first warms up
    return statistics.median(one for one, _ in pairs) / statistics.median(other for _, other in pairs)


def main() -> int:
    """Print the ratios by batch size, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", type=Path, required=True, help="folder of a trained diffusion detector")
    parser.add_argument("--batches", type=int, nargs="+", default=(8, 25, 50, 250))
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(options.network)
    if not isinstance(detector, DiffusionDetector) or detector.image_shape is None:
        parser.error(
            f"--network: {options.network} holds a {detector.name}, need a fitted diffusion detector"
        )
    found: dict[str, object] = {"draws": len(detector.noise_), "image_shape": detector.image_shape}
    for batch in options.batches:
        images = torch.rand(batch, *detector.image_shape, generator=torch.Generator().manual_seed(0))
        both = {
            name: round(ratio(detector.score, one_by_one(detector), images, options.repeats, gradient), 2)
            for name, gradient in (("score", False), ("gradient", True))
        }
        found[f"batch_{batch}"] = both
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
