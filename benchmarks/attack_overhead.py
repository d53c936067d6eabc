"""What the attack harness costs beyond forward and backward passes: `benchmarks/attack_overhead.py --network FOLDER`.

`attack(method="pgd")` and a bare loop of as many forward and backward passes on the same points take turns *step by
step*: a step of the bare loop runs whenever the attack asks for a gradient, and its time is taken off the attack's.
What else goes on on the machine then slows both alike. The median of the runs is printed; exit 1 says it is above 5 %.
The attack's side holds all that it does: projections, the candidates of each image, checks of every gradient, and three
passes without a gradient for the clean, the last and the reported scores. The times are CPU time of one thread, so that
other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from certify.files import write_json
from diffad import load_detector
from diffad.attacks import ThreatModel, attack
from diffad.data import load_data
from diffad.detector import Detector
from diffad.manifest import git_state, hardware, versions

ALLOWED = 0.05


class Interleaved(nn.Module):
    """A detector that runs a step of the bare loop before each pass with a gradient, and sums up its CPU time."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector.eval()
        self.bare = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Scores (b,) of images (b, c, h, w)."""
        if images.requires_grad:
            start = time.process_time()
            leaf = images.detach().clone().requires_grad_()
            torch.autograd.grad(self.detector.score(leaf).sum(), leaf)
            self.bare += time.process_time() - start
        return self.detector.score(images)


def overhead(
    detector: Detector, images: Tensor, threat: ThreatModel, steps: int, repeats: int
) -> dict[str, Any]:
    """Median overhead in one ball, with that of each run."""

    def run() -> tuple[float, float]:
        score = Interleaved(detector).eval()
        start = time.process_time()
        attack(score, images, [0] * len(images), norm=threat.norm, eps=threat.eps, steps=steps)
        return score.bare, time.process_time() - start - score.bare

    detector.score(images)  # warm-up
    pairs = [run() for _ in range(repeats)]
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
