"""No attack may leave a certificate: `python benchmarks/attack_check.py --network runs/digits-8`.

Toy detectors, and a trained one on the digits in every way of smoothing, are certified at radii up to the largest
certified one and attacked there with many restarts. An attacked image violates its certificate if the interval of its
smoothed score, from fresh evaluation draws at level .001 over the number of checks, lies wholly outside the certified
interval (at total alpha .001 for all images of a cell); a Lipschitz score, if its exact value does. Prints a line a
case, with --output a JSON file too; exit 1 on any violation. This is a check of the code, not a proof: a certificate
holds for attacks that nobody has thought of.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify import ScoreBounds, SmoothedDetector, alpha_per_image, max_radius, order_ranks
from certify.files import write_json
from diffad import detector_class, load_detector
from diffad.attacks import attack_smoothed, pgd
from diffad.data import load_data
from diffad.manifest import git_state, versions
from diffad.plan import Plan, smooth
from diffad.sources import at_sigma

ALPHA = 0.001
SHAPE = (1, 4, 4)
FRACTIONS = (0.25, 0.5, 0.75, 0.98)


class Linear(nn.Module):
    """A linear score: certificate and worst case coincide."""

    def score(self, images: Tensor) -> Tensor:
        """Mean pixel, scaled."""
        return images.flatten(1).sum(1)


class Distance(nn.Module):
    """Squared distance to grey."""

    def score(self, images: Tensor) -> Tensor:
        """Sum of squares."""
        return (images - 0.5).flatten(1).square().sum(1)


class Ripples(nn.Module):
    """Many local extrema: gradients mislead."""

    def score(self, images: Tensor) -> Tensor:
        """Sum of cosines and the largest pixel."""
        return torch.cos(6.0 * images).flatten(1).sum(1) + 2.0 * images.flatten(1).amax(1)


class Pair(nn.Module):
    """Reconstruction error against the clean image, L = 1."""

    pair_lipschitz = 1.0

    def score_pair(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        """L2 distance of the two."""
        return (reference - reconstruction).flatten(1).square().sum(1).add(1e-12).sqrt()

    def score(self, images: Tensor) -> Tensor:
        """Error of reconstructing the image itself."""
        return self.score_pair(images, self.reconstruct(images, 0.0))

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        """Of `noisy` alone."""
        raise TypeError("a toy without a denoiser")


class Tight(Pair):
    """The construction that attains the split certificate: the reconstruction flees along one direction."""

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        """Grey, moved against the mean pixel."""
        along = (noisy - 0.5).flatten(1).mean(1)
        return 0.5 - along[:, None, None, None].expand_as(noisy)


class RandomNetwork(Pair):
    """A random two-layer network as denoiser."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(16, 32, generator=generator) / 4, requires_grad=False)
        self.second = nn.Parameter(torch.randn(32, 16, generator=generator) / 6, requires_grad=False)

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        """Two layers with a ReLU."""
        return ((noisy.flatten(1) @ self.first).relu() @ self.second).reshape(noisy.shape)


@dataclass(frozen=True)
class Case:
    """What was attacked, and what came out; `attacks` counts images times restarts, over all radii."""

    detector: str
    way: str
    sigma: float
    radii: tuple[float, ...]
    images: int
    attacks: int
    violations: int
    closest: float
    """Smallest distance from an attacked score to the certified end it was pushed to, as a share of the interval."""
    seconds: float


def attack_case(
    name: str,
    smoothed: SmoothedDetector,
    images: Tensor,
    labels: np.ndarray,
    options: argparse.Namespace,
    checks: int,
    restarts: int,
) -> Case:
    """Certify, attack in ascending radii, and count the attacked images that leave their interval."""
    start, indices = time.perf_counter(), list(range(len(images)))
    assert smoothed.sigma is not None
    level = alpha_per_image(ALPHA, len(images))
    radii = [fraction * max_radius(smoothed.n, smoothed.sigma, level) for fraction in FRACTIONS]
    bounds = smoothed.bounds(images, indices, radii, level)
    violations, closest, previous = 0, np.inf, None
    low, high = order_ranks(options.evaluate, smoothed.percentile, ALPHA / (2 * checks))
    for row, radius in enumerate(radii):
        previous = attack_smoothed(
            *(smoothed, images, labels, indices),
            norm="l2", eps=radius, steps=options.steps, eot=options.eot, restarts=restarts, n_select=options.select,
            n_eval=options.evaluate, previous=previous, seed=row,
        )  # fmt: skip
        fresh = SmoothedDetector(
            smoothed.detector, smoothed.sigma, smoothed.smoothing, n=options.evaluate, batch_size=smoothed.batch_size,
            seed=smoothed.seed + 1,
        )  # fmt: skip
        draws = np.sort(fresh.noisy_scores(previous.images, indices, "evaluate"), axis=1)
        ends = ScoreBounds(draws[:, low - 1], draws[:, high - 1])
        violations += int(((ends.upper < bounds.lower[row]) | (ends.lower > bounds.upper[row])).sum())
        closest = min(closest, nearness(draws[:, draws.shape[1] // 2], bounds.at(row), labels))
    return Case(
        name, smoothed.smoothing, smoothed.sigma, tuple(round(r, 4) for r in radii), len(images),
        len(images) * restarts * len(radii), violations, round(closest, 4), round(time.perf_counter() - start, 1),
    )  # fmt: skip


def exact_case(
    name: str, images: Tensor, labels: np.ndarray, train: Tensor, options: argparse.Namespace
) -> Case:
    """A Lipschitz score: no noise, the float64 enclosure of the attacked score has to meet the bounds."""
    start, radii = time.perf_counter(), (0.05, 0.1, 0.25, 0.5)
    detector = detector_class(name)().fit(train)
    smoothed = SmoothedDetector(detector, None, "none")
    bounds = smoothed.bounds(images, range(len(images)), radii)
    violations, closest = 0, np.inf
    for row, radius in enumerate(radii):
        found = pgd(
            detector.score,
            images,
            labels,
            norm="l2",
            eps=radius,
            steps=options.steps,
            restarts=options.restarts,
        )
        lower, upper = detector.score_interval(found.images)
        violations += int(((upper < bounds.lower[row]) | (lower > bounds.upper[row])).sum())
        closest = min(closest, nearness((lower + upper) / 2, bounds.at(row), labels))
    return Case(
        name, "none", 0.0, radii, len(images), len(images) * options.restarts * len(radii), violations,
        round(closest, 4), round(time.perf_counter() - start, 1),
    )  # fmt: skip


def nearness(scores: np.ndarray, bounds: ScoreBounds, labels: np.ndarray) -> float:
    """Distance of the nearest score to the end it was pushed to, as a share of its interval."""
    width = bounds.upper - bounds.lower
    room = np.where(labels == 0, bounds.upper - scores, scores - bounds.lower)
    finite = np.isfinite(width) & (width > 0)
    return float((room[finite] / width[finite]).min(initial=np.inf))


def toys() -> Iterator[tuple[str, Any, str, float]]:
    """(name, detector, way, sigma)."""
    for sigma in (0.25, 1.0):
        for detector in (Linear(), Distance(), Ripples()):
            yield type(detector).__name__, detector.eval(), "input", sigma
        for detector in (Tight(), RandomNetwork()):
            yield type(detector).__name__, detector.eval(), "reference", sigma
        yield "RandomNetwork", RandomNetwork().eval(), "denoise", sigma


def main() -> int:
    """Run all cases; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--network", type=Path, help="folder of a diffusion detector trained on digits; none: toys only"
    )
    parser.add_argument(
        "--ways", default="reference:2:2,denoise:0.25:0.1,input:0.25:0.5", help="way:sigma:inner, ..."
    )
    parser.add_argument("--toy_images", type=int, default=100)
    parser.add_argument("--toy_restarts", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=6, help="on the digits")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--eot", type=int, default=4)
    parser.add_argument("--n", type=int, default=1000, help="draws of the certificate")
    parser.add_argument("--select", type=int, default=50)
    parser.add_argument("--evaluate", type=int, default=400)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    checks = 4 * (12 * options.toy_images + 3 * 200)  # at least as many as there are
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(options.toy_images, *SHAPE, generator=generator)
    labels = np.arange(options.toy_images) % 2
    cases: list[Case] = []

    def note(case: Case) -> None:
        cases.append(case)
        if options.output is not None:
            write_json(options.output, record(options, cases))
        print(
            f"{case.detector:<14}{case.way:<10} sigma {case.sigma:<5g} {case.attacks:>7} attacks  "
            f"{case.violations} violations  closest {case.closest:.3f} of the interval  {case.seconds:.0f} s",
            flush=True,
        )

    for name, detector, way, sigma in toys():
        smoothed = SmoothedDetector(detector, sigma, way, n=options.n, batch_size=50)  # type: ignore[arg-type]
        note(attack_case(name, smoothed, images, labels, options, checks, options.toy_restarts))
    if options.network is not None:
        split = load_data("digits", normal_class="8")
        for name in ("pixel_mean", "pca", "pixel_nn", "patch_nn"):
            note(exact_case(name, split.test.images, split.test.labels.numpy(), split.train.images, options))
        network = load_detector(options.network)
        for text in options.ways.split(","):
            way, sigma, inner = text.split(":")
            plan = Plan(smoothing=way, sigma=float(sigma), radii=(0.1,), n=options.n, batch_size=200)
            inner_sigma = None if way not in ("input", "denoise") else float(inner)
            smoothed = smooth(at_sigma(network, way, float(sigma), inner_sigma), plan)
            note(
                attack_case(
                    *("diffusion", smoothed, split.test.images, split.test.labels.numpy(), options, checks),
                    options.restarts,
                )
            )
    total, violations = totals(cases)
    print(f"{total} attacked images with restarts, {violations} violations")
    return 1 if violations else 0


def totals(cases: list[Case]) -> tuple[int, int]:
    """Attacked images with restarts, and violations."""
    return sum(case.attacks for case in cases), sum(case.violations for case in cases)


def record(options: argparse.Namespace, cases: list[Case]) -> dict[str, Any]:
    """What was tried and found, for a file; written after every case."""
    attacks, violations = totals(cases)
    chosen = {name: value for name, value in vars(options).items() if name not in ("network", "output")}
    found = {"attacks": attacks, "violations": violations, "cases": [asdict(case) for case in cases]}
    return {"options": chosen, "git": git_state(), "versions": versions(), **found}


if __name__ == "__main__":
    sys.exit(main())
