"""No attack may leave a certificate: `python benchmarks/attack_check.py --network runs/digits-8`.

Toy detectors, and a trained one on the digits in every way of smoothing, are certified at radii up to the largest
certified one and attacked there with many restarts. An attacked image violates its certificate if the interval of its
smoothed score, from fresh evaluation draws at level .001 over the number of checks, lies wholly outside the certified
interval (at total alpha .001 for all images of a cell); a Lipschitz score, if its exact value does. The same attacked
images are held against the adaptive certificate too. Sums over noise levels and the 8-bit grid mode, where what was
found is rounded to the grid inside the ball, are cases of their own. Prints a line a case; with --output also a JSON
file, in which cases of an earlier run with the same options are kept. Exit 1 on any violation. This is a check of the
code, not a proof: a certificate holds for attacks that nobody has thought of.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack_check_toys import SHAPE, toys
from torch import Tensor

from certify import (
    ScoreBounds,
    SmoothedDetector,
    SmoothedSum,
    adaptive_bounds,
    alpha_per_image,
    max_radius,
)
from certify.files import write_json
from diffad import detector_class, load_detector
from diffad.attacks import attack_smoothed, pgd
from diffad.data import load_data
from diffad.manifest import git_state, versions
from diffad.sources import at_sigma

ALPHA = 0.001
FRACTIONS = (0.25, 0.5, 0.75, 0.98)
# Images times radii times two certificates, of 16 toy and at most 9 other cases: more than there ever are.
CHECKS = 2 * len(FRACTIONS) * (16 * 100 + 9 * 100)
Smoothed = SmoothedDetector | SmoothedSum


@dataclass(frozen=True)
class Subject:
    """What is certified: `build(n=, seed=, grid=)` makes its smoothed detector."""

    detector: str
    way: str
    sigmas: tuple[float, ...]
    grid: bool
    build: Callable[..., Smoothed]

    @property
    def key(self) -> tuple[str, str, tuple[float, ...], bool]:
        """What tells it from the others."""
        return self.detector, self.way, self.sigmas, self.grid


@dataclass(frozen=True)
class Case:
    """What was attacked, and what came out; `attacks` counts images times restarts, over all radii."""

    detector: str
    way: str
    sigmas: tuple[float, ...]
    grid: bool
    radii: tuple[float, ...]
    images: int
    attacks: int
    violations: int
    adaptive_violations: int | None
    """Of the same attacked images, against the adaptive certificate; None where it does not apply."""
    closest: float
    """Smallest distance from an attacked score to the certified end it was pushed to, as a share of the interval."""
    seconds: float
    commit: str = ""

    @property
    def key(self) -> tuple[str, str, tuple[float, ...], bool]:
        """What tells it from the others."""
        return self.detector, self.way, self.sigmas, self.grid


def subject(detector: Any, way: str, sigmas: tuple[float, ...], grid: bool, batch_size: int) -> Subject:
    """Return the subject of a detector; several sigmas make a sum over noise levels."""

    def build(*, n: int, seed: int, grid: bool = False) -> Smoothed:
        options: dict[str, Any] = {"n": n, "seed": seed, "batch_size": batch_size, "grid": grid}
        if len(sigmas) == 1:
            return SmoothedDetector(detector, sigmas[0], way, **options)  # type: ignore[arg-type]
        return SmoothedSum.of(detector, sigmas, way, **options)

    return Subject(getattr(detector, "name", type(detector).__name__), way, sigmas, grid, build)


def attack_case(
    case: Subject, images: Tensor, labels: np.ndarray, options: argparse.Namespace, restarts: int
) -> Case:
    """Certify, attack in ascending radii, and count the attacked images that leave their interval."""
    start, indices = time.perf_counter(), list(range(len(images)))
    if case.grid:
        images = (images * 255.0).round() / 255.0
    level = alpha_per_image(ALPHA, len(images))
    # a sum spends its level on each of its noise levels
    least = max_radius(options.n, min(case.sigmas), level / len(case.sigmas))
    radii = [fraction * least for fraction in FRACTIONS]
    certified = case.build(n=options.n, seed=0, grid=case.grid)
    bounds, adaptive = certified.bounds(images, indices, radii, level), None
    if isinstance(certified, SmoothedDetector):
        adaptive = adaptive_certificate(certified, images, labels, radii, level, options.n)
    attacked = case.build(n=options.n, seed=0)  # between the grid points a score has gradients
    fresh = case.build(n=options.evaluate, seed=1, grid=case.grid)
    violations, adaptive_violations, closest, previous = 0, 0, np.inf, None
    for row, radius in enumerate(radii):
        previous = attack_smoothed(
            *(attacked, images, labels, indices), norm="l2", eps=radius, steps=options.steps, eot=options.eot,
            restarts=restarts, n_select=options.select, n_eval=options.evaluate, previous=previous, seed=row,
        )  # fmt: skip
        found = on_grid(previous.images, images) if case.grid else previous.images
        ends = fresh.bounds(found, indices, [0.0], ALPHA / (2 * CHECKS)).at(0)
        violations += outside(ends, bounds.at(row))
        adaptive_violations += 0 if adaptive is None else outside(ends, adaptive.at(row))
        closest = min(closest, nearness(fresh.score(found, indices), bounds.at(row), labels))
    return Case(
        *case.key, tuple(round(r, 4) for r in radii), len(images), len(images) * restarts * len(radii), violations,
        None if adaptive is None else adaptive_violations, round(closest, 4), round(time.perf_counter() - start, 1),
    )  # fmt: skip


def adaptive_certificate(
    smoothed: SmoothedDetector, images: Tensor, labels: np.ndarray, radii: list[float], level: float, n: int
) -> ScoreBounds:
    """Return bounds (radii, images) drawn only as far as the AUROC needs them."""
    assert smoothed.sigma is not None
    return adaptive_bounds(
        smoothed.draw_pool(images, list(range(len(images)))), labels, sigma=smoothed.sigma, radii=radii,
        max_samples=n, alpha_per_image=level, lipschitz=smoothed.lipschitz,
    ).bounds  # fmt: skip


def on_grid(points: Tensor, clean: Tensor) -> Tensor:
    """Return the points on the 8-bit grid, each pixel moved towards its clean one and so not out of the ball."""
    levels = ((points.double() - clean.double()) * 255.0).trunc()
    return ((clean.double() * 255.0).round() + levels).div(255.0).to(clean)


def outside(ends: ScoreBounds, bounds: ScoreBounds) -> int:
    """How many intervals lie wholly outside their bounds."""
    return int(((ends.upper < bounds.lower) | (ends.lower > bounds.upper)).sum())


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
        budget: dict[str, Any] = {"steps": options.steps, "restarts": options.restarts}
        found = pgd(detector.score, images, labels, norm="l2", eps=radius, **budget)
        lower, upper = detector.score_interval(found.images)
        violations += outside(ScoreBounds(lower, upper), bounds.at(row))
        closest = min(closest, nearness((lower + upper) / 2, bounds.at(row), labels))
    return Case(
        name, "none", (), False, radii, len(images), len(images) * options.restarts * len(radii), violations, None,
        round(closest, 4), round(time.perf_counter() - start, 1),
    )  # fmt: skip


def nearness(scores: np.ndarray, bounds: ScoreBounds, labels: np.ndarray) -> float:
    """Distance of the nearest score to the end it was pushed to, as a share of its interval."""
    width = bounds.upper - bounds.lower
    room = np.where(labels == 0, bounds.upper - scores, scores - bounds.lower)
    finite = np.isfinite(width) & (width > 0)
    return float((room[finite] / width[finite]).min(initial=np.inf))


class Record:
    """The cases so far, in a file where --output names one; those of an earlier run with equal options are known."""

    def __init__(self, options: argparse.Namespace) -> None:
        left_out = ("network", "output", "ways")
        self.options = {name: value for name, value in vars(options).items() if name not in left_out}
        self.path: Path | None = options.output
        self.cases: list[Case] = []
        if self.path is not None and self.path.is_file():
            earlier = json.loads(self.path.read_text(encoding="utf-8"))
            if earlier["options"] != self.options:
                sys.exit(f"{self.path}: holds cases under other options; name another --output")
            self.cases = [_case(values) for values in earlier["cases"]]

    def run(self, key: tuple[Any, ...], compute: Callable[[], Case]) -> None:
        """Compute a case unless it is known, print it, and write the file."""
        case = next((one for one in self.cases if one.key == key), None)
        if case is None:
            case = Case(**{**asdict(compute()), "commit": str((git_state() or {}).get("commit", ""))})
            self.cases.append(case)
            if self.path is not None:
                write_json(self.path, self.content())
        kind = "grid" if case.grid else "sum" if len(case.sigmas) > 1 else ""
        also = "" if case.adaptive_violations is None else f", {case.adaptive_violations} adaptive"
        print(
            f"{case.detector:<14}{case.way:<10}{kind:<5}sigma {','.join(map(str, case.sigmas)):<9}{case.attacks:>7} "
            f"attacks  {case.violations} violations{also}  closest {case.closest:.3f} of the interval  "
            f"{case.seconds:.0f} s",
            flush=True,
        )

    def content(self) -> dict[str, Any]:
        """Return what was tried and found."""
        attacks, violations = self.totals()
        found = {"attacks": attacks, "violations": violations, "cases": [asdict(case) for case in self.cases]}
        return {"options": self.options, "versions": versions(), **found}

    def totals(self) -> tuple[int, int]:
        """Attacked images with restarts, and violations."""
        violations = sum(case.violations + (case.adaptive_violations or 0) for case in self.cases)
        return sum(case.attacks for case in self.cases), violations


def _case(values: dict[str, Any]) -> Case:
    lists = {name: tuple(values[name]) for name in ("sigmas", "radii")}
    return Case(**{**{field.name: values[field.name] for field in fields(Case)}, **lists})


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--network", type=Path, help="folder of a detector trained on digits; none: toys only"
    )
    parser.add_argument(
        "--ways",
        default="reference:2,reference:1+2,denoise:0.25:0.1,input:0.25:0.5,sure:0.25",
        help="way:sigma[+sigma...][:inner sigma], ...",
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
    return parser.parse_args()


def main() -> int:
    """Run all cases; return the exit code."""
    options = parse_arguments()
    images = torch.rand(options.toy_images, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels, record = np.arange(options.toy_images) % 2, Record(options)
    for detector, way, sigmas, grid in toys():
        case = subject(detector, way, sigmas, grid, 50)
        record.run(case.key, partial(attack_case, case, images, labels, options, options.toy_restarts))
    if options.network is not None:
        split = load_data("digits", normal_class="8")
        test, answers = split.test.images, split.test.labels.numpy()
        for name in ("pixel_mean", "pca", "pixel_nn", "patch_nn"):
            key = (name, "none", (), False)
            record.run(key, partial(exact_case, name, test, answers, split.train.images, options))
        network = load_detector(options.network)
        for text in options.ways.split(","):
            way, sigma, *inner = text.split(":")
            sigmas = tuple(float(one) for one in sigma.split("+"))
            detector = at_sigma(network, way, sigmas[0], float(inner[0]) if inner else None)
            case = subject(detector, way, sigmas, False, 200)
            record.run(case.key, partial(attack_case, case, test, answers, options, options.restarts))
    attacks, violations = record.totals()
    print(f"{attacks} attacked images with restarts, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
