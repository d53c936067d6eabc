"""What the attack harness costs beyond forward and backward passes: `benchmarks/attack_overhead.py --network FOLDER`.

`attack(method="pgd")` and a bare loop of as many forward and backward passes run in turn in one process, A B A B ...,
on the same network, images and batch; the median of the paired ratios is printed, and exit 1 says that it is above 5 %.
The attack's side holds all that it does: projections, the candidates of each image, checks of every gradient, and three
passes without a gradient for the clean, the last and the reported scores. The times are CPU time of one thread, so that
other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certify.files import write_json
from diffad import load_detector
from diffad.attacks import ThreatModel, attack
from diffad.data import load_data
from diffad.detector import Detector
from diffad.manifest import git_state, hardware, versions

ALLOWED = 0.05


def cpu_seconds(task: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    task()
    return time.process_time() - start


def overhead(
    detector: Detector, images: Tensor, threat: ThreatModel, steps: int, repeats: int
) -> dict[str, Any]:
    """Median overhead in one ball, with the ratios of all pairs."""

    def bare() -> None:
        for _ in range(steps):
            leaf = images.clone().requires_grad_()
            torch.autograd.grad(detector.score(leaf).sum(), leaf)

    def harness() -> None:
        attack(detector, images, [0] * len(images), norm=threat.norm, eps=threat.eps, steps=steps)

    detector.score(images)  # warm-up
    pairs = [(cpu_seconds(bare), cpu_seconds(harness)) for _ in range(repeats)]
    overheads = [mine / loop - 1.0 for loop, mine in pairs]
    return {
        "norm": threat.norm,
        "eps": threat.eps,
        "bare_seconds": round(statistics.median(loop for loop, _ in pairs), 3),
        "median": round(statistics.median(overheads), 4),
        "all": [round(one, 4) for one in overheads],
    }


def main() -> int:
    """Print the overhead in both norms, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", type=Path, required=True, help="folder of a detector trained on digits")
    parser.add_argument(
        "--draws", type=int, default=1, help="stored draws of its score: network calls an image"
    )
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--images", type=int, default=44, help="one batch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(options.network).with_options(draws=options.draws)
    images = load_data("digits", normal_class="8").test.images[: options.images]
    found = []
    for threat in (ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)):
        found.append(overhead(detector, images, threat, options.steps, options.repeats))
        print(
            f"{threat.norm:<5}{100 * found[-1]['median']:6.1f} % over the bare loop (median of {options.repeats})",
            flush=True,
        )
    if options.output is not None:
        kept = {name: getattr(options, name) for name in ("draws", "steps", "images", "repeats")}
        facts = {"options": kept, "git": git_state(), "hardware": hardware(), "versions": versions()}
        write_json(options.output, {**facts, "overhead": found})
    return int(any(one["median"] > ALLOWED for one in found))


if __name__ == "__main__":
    sys.exit(main())
