"""How many draws a certificate needs: `python benchmarks/adaptive_sampling.py`.

A synthetic population, whose rates p of votes have margins Phi^-1(p) that are normal, is certified at one radius by a
fixed number of draws, by four looks at alpha / 4 each (Bonferroni), by the truncated-Beta mixture looked at after
every draw, and by the exact group-sequential test. All see the same draws, and each but the first stops for futility
by the mirrored test. Testing the fixed bound again after every draw is left out: it is no test at this level.

With `--detector FOLDER` the same is done for the decisions of a trained diffusion detector on test images, each at its
known label, and the adaptive AUROC is compared with that of a fixed number of draws. All images are then drawn to the
end once, so that every way sees the same draws.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import binom

from certify import (
    Decisions,
    GroupSequentialPlan,
    SmoothedDetector,
    adaptive_bounds,
    alpha_per_image,
    auroc,
    certify_decisions,
    certify_scores,
    default_looks,
    group_sequential_plan,
    mixture_boundary,
    run_plan,
)
from certify.adaptive import votes
from certify.files import write_json
from certify.types import FloatArray
from diffad.data import load_data
from diffad.manifest import git_state, versions
from diffad.registry import load_detector

Votes = np.ndarray[Any, np.dtype[np.bool_]]


def bonferroni(
    p0: float, alpha: float, futility: float, max_samples: int, looks: int = 4
) -> GroupSequentialPlan:
    """Four looks in geometric steps from a hundredth of the budget, each a fixed-n test at alpha / 4."""
    schedule = tuple(int(n) for n in np.geomspace(max_samples / 100, max_samples, looks).round())
    boundaries = tuple(int(binom.isf(alpha / looks, n, p0)) + 1 for n in schedule)
    mirrored = (int(binom.isf(futility / looks, n, 1.0 - p0)) + 1 for n in schedule)
    hopeless = tuple(min(failures, max_samples - boundaries[-1] + 1) for failures in mirrored)
    return GroupSequentialPlan(p0, alpha, schedule, boundaries, alpha, hopeless)


def mixture(p0: float, alpha: float, futility: float, max_samples: int) -> GroupSequentialPlan:
    """The anytime-valid mixture test, cut off at the budget; both boundaries at every number of draws."""
    n = np.arange(1, max_samples + 1)
    boundaries = mixture_boundary(n, p0, alpha)
    hopeless = np.minimum(mixture_boundary(n, 1.0 - p0, futility), max_samples - boundaries[-1] + 1)
    return GroupSequentialPlan(p0, alpha, tuple(n), tuple(boundaries), alpha, tuple(hopeless))


def plans(p0: float, alpha: float, futility: float, max_samples: int) -> dict[str, GroupSequentialPlan]:
    """Every way to test H0: rate of votes <= p0 with at most `max_samples` draws."""
    return {
        "fixed n": group_sequential_plan(p0, alpha, [max_samples], futility=0.0),
        "four-look Bonferroni": bonferroni(p0, alpha, futility, max_samples),
        "truncated mixture": mixture(p0, alpha, futility, max_samples),
        "group-sequential": group_sequential_plan(
            p0, alpha, default_looks(p0, alpha, max_samples), futility=futility
        ),
    }


def population(options: argparse.Namespace) -> Iterator[Votes]:
    """Yield the votes of the synthetic images, (some images, max_samples) at a time."""
    rng = np.random.default_rng(options.seed)
    rates = ndtr(rng.normal(options.mean, options.sd, options.images))
    for start in range(0, options.images, 250):
        some = rates[start : start + 250]
        yield rng.random((len(some), options.max_samples), dtype=np.float32) < some[:, None]


def compare(tests: dict[str, GroupSequentialPlan], votes: Iterator[Votes]) -> list[dict[str, Any]]:
    """Print and return draws used and share certified of each test on the same draws."""
    used = {name: 0 for name in tests}
    certified = {name: 0 for name in tests}
    images = 0
    for some in votes:
        counts = np.cumsum(some, axis=1, dtype=np.int32)
        images += len(some)
        for name, plan in tests.items():
            outcome = run_plan(plan, counts[:, np.asarray(plan.looks) - 1])
            used[name] += int(outcome.samples.sum())
            certified[name] += int(outcome.rejected.sum())
    print(f"{'test':<22}{'draws an image':>15}{'of fixed':>10}{'certified':>11}{'lost, points':>14}")
    for name in tests:
        lost = 100 * (certified["fixed n"] - certified[name]) / images
        share = used[name] / used["fixed n"]
        print(
            f"{name:<22}{used[name] / images:>15.1f}{share:>10.2%}{certified[name] / images:>11.4f}{lost:>14.2f}"
        )
    return [
        {"test": name, "draws_an_image": used[name] / images, "certified": certified[name] / images}
        for name in tests
    ]


class Drawn:
    """A source of draws that lie ready, (images, n)."""

    def __init__(self, scores: FloatArray) -> None:
        self.scores = scores
        self.asked = [0] * len(scores)

    def extend(self, targets: Mapping[int, int]) -> None:
        """Uncover draws."""
        for row, n in targets.items():
            self.asked[row] = max(self.asked[row], n)

    def draws(self, row: int) -> FloatArray:
        """Return the draws uncovered so far."""
        return self.scores[row, : self.asked[row]]


def on_draws(
    scores: FloatArray,
    labels: Any,
    threshold: float,
    sigma: float,
    lipschitz: float,
    options: argparse.Namespace,
) -> None:
    """Compare on the scores (images, max_samples) of a detector: decisions at one radius, AUROC at another."""
    sides = ["anomalous" if label else "normal" for label in labels]
    margin = lipschitz * options.decision_radius
    table = np.stack([votes(row, threshold, margin, side) for row, side in zip(scores, sides, strict=True)])
    p0 = float(ndtr(options.decision_radius / sigma))
    print(f"decisions at r = {options.decision_radius:g}, sigma {sigma:g}, threshold {threshold:.4g}")
    compare(plans(p0, options.alpha, options.futility, options.max_samples), iter([table]))
    common = {"sigma": sigma, "max_samples": options.max_samples, "lipschitz": lipschitz}
    result: Decisions = certify_decisions(
        Drawn(scores),
        threshold,
        sides,
        radius=options.decision_radius,
        alpha=options.alpha,
        futility=options.futility,
        **common,
    )
    fixed = table.sum(axis=1) >= group_sequential_plan(p0, options.alpha, [options.max_samples]).boundaries[0]
    print(
        f"certify_decisions, looks at whole noise chunks: {result.samples.mean():.1f} draws an image, "
        f"{1 / (1 - result.saving):.1f} times fewer; "
        f"{int((result.certified == fixed).sum())} of {len(fixed)} decisions the same, "
        f"{int(result.certified.sum())} certified against {int(fixed.sum())}"
    )
    for radius in options.radii:
        level = alpha_per_image(options.alpha, len(labels))
        adaptive = adaptive_bounds(Drawn(scores), labels, radii=[radius], alpha_per_image=level, **common)
        full = certify_scores(scores, sigma, [radius], level, lipschitz)
        print(
            f"certified AUROC (both) at r = {radius:g}: fixed n {auroc(full, labels)[0]:.4f}, adaptive "
            f"{auroc(adaptive.bounds, labels)[0]:.4f} with {adaptive.saving:.1%} of the draws saved, "
            f"{adaptive.undecided[0, 0]:.2%} of the pairs left undecided"
        )


def on_detector(options: argparse.Namespace) -> None:
    """Draw every test image to the end, then compare."""
    detector = load_detector(options.detector)
    split = load_data(options.data, normal_class=options.normal_class)
    smoothed = SmoothedDetector(detector, detector.sigma, "reference", batch_size=options.batch_size)
    threshold = smoothed.calibrate(split.calibration.images, options.quantile)
    pool = smoothed.draw_pool(split.test.images, range(len(split.test.images)))
    scores = pool.all_draws(options.max_samples)
    on_draws(scores, np.asarray(split.test.labels), threshold, detector.sigma, smoothed.lipschitz, options)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--max_samples", type=int, default=10_000)
    parser.add_argument("--alpha", type=float, default=0.001)
    parser.add_argument("--futility", type=float, default=0.01)
    parser.add_argument("--output", type=Path, help="JSON file, of the synthetic population")
    synthetic = parser.add_argument_group("synthetic population")
    synthetic.add_argument("--ratio", type=float, default=1.0, help="r / sigma")
    synthetic.add_argument("--images", type=int, default=20_000)
    synthetic.add_argument("--mean", type=float, default=1.5, help="of the margins")
    synthetic.add_argument("--sd", type=float, default=1.5, help="of the margins")
    synthetic.add_argument("--seed", type=int, default=0)
    trained = parser.add_argument_group("trained detector")
    trained.add_argument("--detector", help="folder of a diffusion detector")
    trained.add_argument("--data", default="digits")
    trained.add_argument("--normal_class", default="8")
    trained.add_argument("--batch_size", type=int, default=500)
    trained.add_argument("--quantile", type=float, default=0.9, help="of the normals that set the threshold")
    trained.add_argument("--decision_radius", type=float, default=0.25)
    trained.add_argument("--radii", type=float, nargs="+", default=[0.1], help="of the AUROC")
    options = parser.parse_args()

    start = time.perf_counter()
    print(f"synthetic population: margins {options.mean:g} +- {options.sd:g}, r / sigma = {options.ratio:g}")
    tests = plans(float(ndtr(options.ratio)), options.alpha, options.futility, options.max_samples)
    rows = compare(tests, population(options))
    if options.output is not None:
        names = ("max_samples", "alpha", "futility", "ratio", "images", "mean", "sd", "seed")
        chosen = {name: getattr(options, name) for name in names}
        write_json(
            options.output, {"rows": rows, "options": chosen, "git": git_state(), "versions": versions()}
        )
    print(f"({time.perf_counter() - start:.0f} s)")
    if options.detector is not None:
        on_detector(options)


if __name__ == "__main__":
    main()
