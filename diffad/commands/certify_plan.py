"""`certify --dry_run`: what a certificate will cost and what it cannot prove, before anything is spent."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.special import ndtri

from certify.bounds import linf_reading, min_samples, shifted_ranks
from certify.checks import InputError
from certify.composition import Composition
from certify.sampler import NOISE_CHUNK, gaussian_noise
from certify.smoothing import SmoothedDetector
from certify.text import ceil_text, floor_text, short_text
from diffad.baselines.choose import fit_baseline
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.evaluation import BASELINES
from diffad.levels import level_plans
from diffad.plan import Plan, baseline_plan, default_smoothing, smooth
from diffad.registry import detector_class
from diffad.tables import align

Finite = Literal["both ends", "lower end", "upper end", "infinite"]


@dataclass(frozen=True)
class Work:
    """Forward passes (images scored) of one detector on one part of the data, and their expected time."""

    detector: str
    part: str
    images: int
    draws: int
    passes: int
    seconds: float


@dataclass(frozen=True)
class Reach:
    """What `n` draws can prove at one L2 radius, whatever the scores.

    `linf` is the radius of the largest Linf ball inside the L2 ball; `least_n` the fewest draws that leave
    both ends of the bounds finite, None where no number does; `finite` says which ends are at the n asked for.
    """

    radius: float
    linf: float
    least_n: int | None
    finite: Finite


def show_plan(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    *,
    purifier: Any = None,
    baselines: bool = True,
    json_wanted: bool = False,
) -> None:
    """Print what certifying would cost and reach: two tables, or one JSON object.

    One batch of each detector that is drawn under noise is timed; nothing else is computed or written.
    """
    images = len(split.test)
    level = plan.level(images)
    pixels = math.prod(split.test.images.shape[1:])
    work = expected_work(detector, split, plan, purifier)
    if baselines:
        itself = default_smoothing(detector) == plan.smoothing  # its network-free row would be the row itself
        work += network_free_work(split, plan, skip=detector.name if itself else "")
    reach = [reach_at(radius, plan, images, pixels) for radius in plan.radii]
    if json_wanted:
        print(json.dumps(_as_json(plan, work, reach, level, pixels)))
        return
    most = "at most " if plan.adaptive else ""
    noise = f", sigma {plan.noise}, n = {most}{plan.n}" if plan.noise else ""
    print(f"{split.name}  {detector.name}, way {plan.smoothing}{noise}; nothing has been drawn\n")
    print(work_text(work) + "\n\n" + reach_text(reach, plan))
    if plan.smoothing != "none":
        shared = f"{images} images" if plan.cells == 1 else f"{images} images and {plan.cells} cells"
        print(f"\nlevel of each bound: {level:.3g} (alpha = {plan.alpha:g} over {shared})")
    if plan.adaptive:
        print("drawing stops early where it can; its looks share the level, which costs radii near the limit")


def expected_work(detector: Detector, split: DataSplit, plan: Plan, purifier: Any = None) -> list[Work]:
    """Return the passes over calibration and test images; the time is that of one batch, times the batches.

    Every level of a sum draws as much as one level by itself.
    """
    levels = level_plans(plan) if plan.sigmas else [plan]
    smoothed = smooth(detector, levels[0], purifier)
    calibration = min(plan.calibration, len(split.calibration))
    draws = 0 if smoothed.base is None else plan.n
    seconds = seconds_per_pass(smoothed, split)
    found = []
    for part, images in (("calibration", calibration), ("test", len(split.test))):
        passes = images if smoothed.base is None else len(levels) * passes_under_noise(images, plan)
        found.append(Work(detector.name, part, images, draws, passes, passes * seconds))
    return found


def network_free_work(split: DataSplit, plan: Plan, *, skip: str) -> list[Work]:
    """Return the work of those network-free rows that need noise; the others cost one pass an image."""
    found: list[Work] = []
    for name in BASELINES:
        if name == skip or default_smoothing(detector_class(name)()) == "none":
            continue
        baseline = fit_baseline(name, split.train.images, split.validation, plan.radii)
        found += expected_work(baseline, split, baseline_plan(baseline, plan))
    return found


def passes_under_noise(images: int, plan: Plan) -> int:
    """Return the images scored for plan.n draws of each image, in the batches of `certify.composition`."""
    groups = Composition.of(range(images), plan.batch_size, plan.images_per_batch)
    first = range(0, images, plan.images_per_batch)
    return sum(plan.batch_size for row in first for _ in groups.batches(row, plan.n))


def seconds_per_pass(smoothed: SmoothedDetector, split: DataSplit) -> float:
    """Time one full batch of noisy copies of the first test image, after one to warm up."""
    clean = split.test.images[:1]
    if smoothed.base is None or smoothed.sigma is None:
        images = split.test.images[: smoothed.batch_size]
        return _seconds(lambda: smoothed.score(images, range(len(images)))) / len(images)
    base, chunks = smoothed.base, smoothed.batch_size // NOISE_CHUNK
    shape = (NOISE_CHUNK, *clean.shape[1:])
    noise = np.concatenate([gaussian_noise(smoothed.seed, 0, "select", c, shape) for c in range(chunks)])
    noisy = (clean.double() + smoothed.sigma * torch.from_numpy(noise)).float().to(smoothed.device)

    def batch() -> None:
        with torch.no_grad():
            base(clean.to(smoothed.device), noisy).cpu()  # cpu() waits for a device that runs ahead

    return _seconds(batch) / len(noisy)


def _seconds(run: Any) -> float:
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def reach_at(radius: float, plan: Plan, images: int, pixels: int) -> Reach:
    """Return what the plan can prove at a radius about so many test images; exact, and free of scores."""
    linf = linf_reading(radius, pixels)
    if plan.smoothing == "none" or plan.sigma is None:
        return Reach(radius, linf, 0, "both ends")
    level, sigma = plan.weakest(images)
    low, high = shifted_ranks(plan.n, plan.percentile, radius / sigma, level)
    ends: dict[tuple[bool, bool], Finite] = {
        (True, True): "both ends",
        (True, False): "lower end",
        (False, True): "upper end",
        (False, False): "infinite",
    }
    least = least_draws(radius, sigma, plan.percentile, level)
    return Reach(radius, linf, least, ends[low >= 1, high <= plan.n])


def least_draws(radius: float, sigma: float, percentile: float, level: float) -> int | None:
    """Return the fewest draws with both ends finite; None beyond any number of them.

    A lower end needs (1 - p_l)^n <= level, an upper one p_u^n <= level, with p_l, p_u = Phi(Phi^-1(p) -/+ r /
    sigma): the larger of the two is Phi(|Phi^-1(p)| + r / sigma), the median's at a larger radius.
    """
    try:
        return min_samples(radius + sigma * abs(float(ndtri(percentile))), sigma, level)
    except InputError:
        return None


def work_text(work: list[Work]) -> str:
    """Return the table of forward passes and the expected time."""
    lines = [["forward passes", "images", "draws", "passes", "expected time"]]
    for row in work:
        name = f"{row.detector}, {row.part}"
        lines.append([name, str(row.images), str(row.draws or "-"), str(row.passes), _time(row.seconds)])
    total = [str(sum(row.passes for row in work)), _time(sum(row.seconds for row in work))]
    return align([*lines, ["total", "", "", *total]])


def reach_text(reach: list[Reach], plan: Plan) -> str:
    """Return the table of radii: their Linf reading, the least n, and what stays finite at the n asked for."""
    lines = [["L2 radius", "Linf reading", "least n", f"finite at n = {plan.n}"]]
    for row in reach:
        least = "no n will do" if row.least_n is None else str(row.least_n or "-")
        lines.append([short_text(row.radius), floor_text(row.linf, 5), least, row.finite])
    return align(lines)


def _time(seconds: float) -> str:
    whole = math.ceil(seconds)
    if whole < 120:
        return f"{ceil_text(seconds, 1)} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole >= 3600 else f"{whole // 60} min"


def _as_json(plan: Plan, work: list[Work], reach: list[Reach], level: float, pixels: int) -> dict[str, Any]:
    return {
        "dry_run": True,
        "smoothing": plan.smoothing,
        "sigma": plan.sigma,
        "sigmas": plan.sigmas,
        "n": plan.n,
        "alpha": plan.alpha,
        "level": level,
        "pixels": pixels,
        "work": [asdict(row) for row in work],
        "passes": sum(row.passes for row in work),
        "seconds": sum(row.seconds for row in work),
        "radii": [asdict(row) for row in reach],
    }
