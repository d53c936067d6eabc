"""Our attacks against those of four libraries: `benchmarks/against_attacks.py --peers FOLDER --network FOLDER`.

Every attack gets the same images of digits, the same ball and 100 gradients an image, which are counted. The peers see
the score through two logits (`peers/shim.py`); what they find is put into the ball exactly, and scored by the detector
itself. On an image we are below a peer if our gain over the clean score is more than 1 % of the peer's gain below it.
Exit 1 if our APGD is below any peer on more than 5 % of the images of a cell.

Seconds are CPU time of one thread, so that other work on the machine does not count; each class is one batch.
How to install the peers: `peers/README.md`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers.libraries import PACKAGES, PEERS, Run
from peers.shim import CountedScore, TwoLogits
from torch import Tensor, nn

from certify.files import write_json, write_text
from diffad import detector_class, load_detector
from diffad.attacks import ThreatModel, attack
from diffad.data import load_data
from diffad.manifest import git_state, hardware, versions

GRADIENTS = 100
MARGIN, SHARE = 0.01, 0.95
JUDGED = "apgd_averaged"
OURS = (JUDGED, "apgd", "pgd", "pgd-100")


@dataclass(frozen=True)
class Outcome:
    """What an attack reached on the images of a class, and its cost; `gains` (n,) are in the attacker's direction."""

    scores: np.ndarray
    gains: np.ndarray
    seconds: float
    scored: float
    differentiated: float
    excess: float


@dataclass(frozen=True)
class Cell:
    """An attack on a detector in a ball, over both classes.

    `not_below` says for each of ours on which share of the images it is not below this attack, `above` on which share
    this attack is below it; `excess` is how far the attack left the ball before it was put back.
    """

    detector: str
    norm: str
    eps: float
    attack: str
    images: int
    median_gain: float
    mean_gain: float
    not_below: dict[str, float]
    above: dict[str, float]
    seconds: float
    gradients_an_image: float
    scores_an_image: float
    excess: float


def our_attack(
    method: str,
    score: CountedScore,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    gradients: int,
) -> Tensor:
    """Run a method of ours in the shape of a peer's."""
    steps = None if method == "pgd-100" else gradients
    return attack(
        score, images, labels, norm=norm, eps=eps, method=method, steps=steps, batch_size=len(images)
    ).images


def scores_of(score: nn.Module, images: Tensor) -> np.ndarray:
    """Scores (n,), float64."""
    with torch.no_grad():
        return score(images).double().numpy()


def measure(
    run: Run, score: CountedScore, model: nn.Module, clean: Tensor, label: int, threat: ThreatModel
) -> Outcome:
    """Attack the images of one class, and judge what was found by the detector itself."""
    before = scores_of(score, clean)
    score.take_counts()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (where the Toolbox draws its starts from)
    start = time.process_time()
    labels = torch.full((len(clean),), label)
    found = run(model, clean.clone(), labels, threat.norm, threat.eps, GRADIENTS).detach()
    seconds = time.process_time() - start
    scored, differentiated = (count / len(clean) for count in score.take_counts())
    excess = max(0.0, float(threat.distance(found, clean).max()) - threat.eps)
    after = scores_of(score, threat.project(found, clean))
    gains = (after - before) * (1.0 if label == 0 else -1.0)
    return Outcome(after, gains, seconds, scored, differentiated, excess)


def not_below(gains: np.ndarray, other: np.ndarray) -> float:
    """Share of images whose gain is not below the other's by more than 1 % of that."""
    return float((gains >= other - MARGIN * np.abs(other)).mean())


def compare(
    name: str, detector: nn.Module, classes: list[Tensor], threat: ThreatModel, rows: list[str]
) -> list[Cell]:
    """Run every attack on both classes of a detector in a ball; add a row an image to `rows`."""
    score = CountedScore(detector)
    runs: dict[str, Run] = {method: partial(our_attack, method, score) for method in OURS} | PEERS
    outcomes: dict[str, list[Outcome]] = {key: [] for key in runs}
    for label, clean in enumerate(classes):
        before = scores_of(score, clean)
        model = TwoLogits(score, before, anomalous=label == 1).eval()
        for key, run in runs.items():
            outcome = measure(run, score, model, clean, label, threat)
            if outcome.differentiated != GRADIENTS:
                sys.exit(
                    f"{key}: took {outcome.differentiated} gradients an image, the budget is {GRADIENTS}"
                )
            outcomes[key].append(outcome)
            for image, (old, new) in enumerate(zip(before, outcome.scores, strict=True)):
                rows.append(f"{name},{threat.norm},{threat.eps:g},{label},{image},{key},{old:.6g},{new:.6g}")
    gains = {key: np.concatenate([one.gains for one in both]) for key, both in outcomes.items()}
    return [
        Cell(
            name, threat.norm, threat.eps, key, len(gains[key]), round(float(np.median(gains[key])), 5),
            round(float(np.mean(gains[key])), 5),
            {our: round(not_below(gains[our], gains[key]), 4) for our in OURS},
            {our: round(1.0 - not_below(gains[key], gains[our]), 4) for our in OURS},
            round(sum(one.seconds for one in both), 2),
            statistics.mean(one.differentiated for one in both), statistics.mean(one.scored for one in both),
            max(one.excess for one in both),
        )
        for key, both in outcomes.items()
    ]  # fmt: skip


def detectors(options: argparse.Namespace, train: Tensor) -> Iterator[tuple[str, Any, int | None]]:
    """(name, fitted detector, limit of images a class)."""
    for name in ("pixel_nn", "pca"):
        yield name, detector_class(name)().fit(train), options.limit
    if options.network is not None:
        network = load_detector(options.network).with_options(draws=options.draws)
        yield "diffusion", network, options.network_limit


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, required=True, help="folder that the peers are installed in")
    parser.add_argument("--network", type=Path, help="folder of a diffusion detector trained on digits")
    parser.add_argument("--normal_class", default="8", help="the one of the network")
    parser.add_argument("--draws", type=int, default=1, help="stored draws of the network's score")
    parser.add_argument("--linf", type=float, default=0.1)
    parser.add_argument("--l2", type=float, default=0.5)
    parser.add_argument("--limit", type=int, help="images of each class (default: all test images)")
    parser.add_argument("--network_limit", type=int, help="the same for the network")
    parser.add_argument("--output", type=Path, help="JSON file; the scores go to a .csv beside it")
    return parser.parse_args()


class Record:
    """What was measured so far; written after each cell where --output names a file."""

    def __init__(self, options: argparse.Namespace) -> None:
        peers = {found.name: found.version for found in distributions(path=[str(options.peers)])}
        kept = ("normal_class", "draws", "limit", "network_limit")
        self.path: Path | None = options.output
        self.facts = {
            "options": {name: getattr(options, name) for name in kept},
            "git": git_state(), "hardware": hardware(), "versions": versions(),
            "peers": {package: peers[package] for package in PACKAGES},
        }  # fmt: skip
        self.cells: list[Cell] = []
        self.rows = ["detector,norm,eps,label,image,attack,clean_score,attacked_score"]

    def write(self) -> None:
        """Write the JSON file, and the scores of each image beside it."""
        if self.path is not None:
            cells = [asdict(cell) for cell in self.cells]
            write_json(self.path, {**self.facts, "cells": cells})
            write_text(self.path.with_suffix(".csv"), "\n".join(self.rows) + "\n")

    def failures(self) -> list[str]:
        """Return a line for each peer that our APGD is below too often."""
        below = [cell for cell in self.cells if cell.attack in PEERS and cell.not_below[JUDGED] < SHARE]
        return [
            f"{cell.detector}, {cell.norm}: {JUDGED} is not below {cell.attack} on {cell.not_below[JUDGED]:.3f} of the "
            f"images only, need {SHARE}"
            for cell in below
        ]


def main() -> int:
    """Print the tables, and return the exit code."""
    options = parse_arguments()
    sys.path.append(str(options.peers))  # last: what the project has itself comes from the project
    torch.set_num_threads(1)
    split = load_data("digits", normal_class=options.normal_class)
    sides = [split.test.images[split.test.labels == label] for label in (0, 1)]
    threats = [ThreatModel("linf", options.linf), ThreatModel("l2", options.l2)]
    record = Record(options)
    for name, detector, limit in detectors(options, split.train.images):
        for threat in threats:
            found = compare(name, detector, [side[:limit] for side in sides], threat, record.rows)
            show(found)
            record.cells += found
            record.write()
    failures = record.failures()
    print("\n".join(failures))
    return 1 if failures else 0


def show(cells: list[Cell]) -> None:
    """Print the attacks on one detector in one ball."""
    first = cells[0]
    print(
        f"\n{first.detector}, {first.norm} {first.eps:g}, {first.images} images, {GRADIENTS} gradients an image"
    )
    print(f"{'':<20}{'mean gain':>12}{'not below it: ' + '  '.join(OURS):>46}{'CPU s':>9}{'scores':>8}")
    for cell in cells:
        shares = "  ".join(f"{cell.not_below[our]:.3f}" for our in OURS)
        print(
            f"{cell.attack:<20}{cell.mean_gain:>12.4f}{shares:>46}{cell.seconds:>9.1f}{cell.scores_an_image:>8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
