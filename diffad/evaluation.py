"""From a detector and a data set to conditions: certified, and the network-free rows beside them.

The commands `certify` and `diffad attack` are these functions with options, progress and files around them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from certify.bounds import alpha_per_image
from certify.certificate import certified_radius, certify_scores, percentile_scores
from certify.checks import InputError, check_choice, check_device, check_positive, check_probability
from certify.confidence import CONFIDENCE_METHODS, ConfidenceMethod
from certify.console import progress
from certify.sampler import NOISE_CHUNK
from certify.shards import Shard
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from certify.types import FloatArray
from diffad.baselines.choose import fit_baseline
from diffad.conditions import (
    Condition,
    IntArray,
    Subject,
    TestedImages,
    certified_conditions,
    clean_condition,
)
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.registry import load_detector

# What needs no network; every certified table carries these rows (docs/certificates.md says why).
BASELINES = ("pixel_mean", "pca", "pixel_nn", "patch_nn", "closed_form")


@dataclass(frozen=True)
class Plan:
    """How a detector is smoothed and certified.

    `alpha` is the total of one table cell (one radius, one side, all images) or, when `joint`, of all cells;
    `confidence` says how the images of a cell share it (`certify.confidence`); under `failures` and `population`
    each bound takes alpha as well. `alpha_per_image` is the convention of the literature, reported beside it
    from the same draws. `sigma` and `radii` are L2 in [0, 1] pixel units.
    """

    smoothing: str
    sigma: float | None
    radii: tuple[float, ...]
    n: int = 1000
    alpha: float = 0.001
    alpha_per_image: float = 0.001
    joint: bool = False
    confidence: ConfidenceMethod = "union"
    percentile: float = 0.5
    quantile: float = 0.9
    calibration: int = 50
    seed: int = 0
    batch_size: int = 250
    images_per_batch: int = 1
    grid: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse values out of range before anything is drawn."""
        if self.sigma is not None:
            check_positive(self.sigma, "sigma")
        for name in ("alpha", "alpha_per_image"):
            if not 0.0 < getattr(self, name) < 0.5:
                raise InputError(f"{name}: got {getattr(self, name)}, need a value between 0 and 0.5")
        check_choice(self.confidence, CONFIDENCE_METHODS, "confidence")
        check_probability(self.percentile, "percentile")
        check_probability(self.quantile, "quantile")
        for name, least in (("n", 1), ("calibration", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least {least}")
        if self.images_per_batch < 1:
            raise InputError(f"images_per_batch: got {self.images_per_batch}, need at least 1")
        least = NOISE_CHUNK * self.images_per_batch
        if self.batch_size < 1 or self.batch_size % least:
            raise InputError(
                f"batch_size: got {self.batch_size}, need a multiple of {least} "
                f"({NOISE_CHUNK} draws of {self.images_per_batch} image(s))"
            )
        check_device(self.device)

    @property
    def cells(self) -> int:
        """Cells that share alpha: each radius above 0 has three sides."""
        above = sum(radius > 0 for radius in self.radii)
        return 3 * above + 1 if self.joint else 1

    @property
    def alpha_kind(self) -> str:
        """How rows name `confidence`."""
        return "total" if self.confidence == "union" else self.confidence

    def level(self, images: int) -> float:
        """One-sided level of each image's bound in a cell of `images` images."""
        return alpha_per_image(self.alpha, images if self.confidence == "union" else 1, self.cells)


def default_smoothing(detector: Detector) -> str:
    """Return `none` for a Lipschitz score, `reference` for a Lipschitz comparison, else `input`."""
    if detector.lipschitz is not None:
        return "none"
    return "reference" if detector.pair_lipschitz is not None else "input"


def smooth(
    detector: Detector, plan: Plan, purifier: Any = None, shard: Shard | None = None
) -> SmoothedDetector:
    """Return the smoothed detector of a plan, on its device, with the object that denoises for it, if any.

    `shard` is the share of this process where several draw together.
    """
    if purifier is not None:
        if plan.smoothing not in ("denoise", "reference"):
            raise InputError(
                f"--purifier: the way {plan.smoothing!r} does not denoise; use --smoothing denoise"
            )
        if purifier.image_shape != detector.image_shape:
            raise InputError(
                f"--purifier: denoises images {purifier.image_shape}, the detector takes {detector.image_shape}"
            )
        purifier = purifier.to(plan.device)
    return SmoothedDetector(
        detector.to(plan.device),
        None if plan.smoothing == "none" else plan.sigma,
        plan.smoothing,  # type: ignore[arg-type]  # checked there
        n=plan.n,
        alpha=plan.alpha_per_image,
        percentile=plan.percentile,
        seed=plan.seed,
        batch_size=plan.batch_size,
        images_per_batch=plan.images_per_batch,
        grid=plan.grid,
        shard=shard,
        device=plan.device,
        purifier=purifier,
    )


def subject_of(detector: Detector, split: DataSplit, plan: Plan) -> Subject:
    """Return what the rows name: data, detector, way, score and sigma."""
    score_name = score_name_of(detector, plan.smoothing)
    noise = None if plan.smoothing in ("none", "") else plan.sigma
    return Subject(split.name, split.resolution, detector.name, plan.smoothing, score_name, noise)


def score_name_of(detector: Detector, smoothing: str) -> str:
    """Return the score as rows name it, with the noise that the detector was fitted on, if any."""
    # the way `sure` has one score of its own, whatever else the detector offers
    name = "squared_l2" if smoothing == "sure" else str(getattr(detector, "score_name", ""))
    fitted_at = detector.fit_info.get("noise_sigma")
    return name if fitted_at is None else f"{name} fit_sigma={fitted_at:g}".strip()


def certify_split(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    *,
    store_folder: Path | None = None,
    purifier: Any = None,
    shard: Shard | None = None,
) -> tuple[list[Condition], FloatArray]:
    """Certify a fitted detector on the test images.

    Returns the clean and certified conditions, and the certified radius (images,) of the right decision at the
    calibrated threshold (0 where there is none), at `alpha_per_image`. Radius 0 is always certified: `in` and
    `out` need its confidence bounds. The clean score is the percentile of the certification draws. With
    `store_folder` the draws are kept and an interrupted run goes on; processes that share the work (`shard`)
    meet there, and each returns the whole.
    """
    smoothed = smooth(detector, plan, purifier, shard)
    subject, tested = subject_of(detector, split, plan), TestedImages.of(split.test)
    store = partial(_store, store_folder, detector, split, smoothed, purifier)
    smoothed.calibrate(
        split.calibration.images[: plan.calibration], plan.quantile, store=store("calibrate", "calibrate")
    )
    radii = sorted({0.0, *plan.radii})
    shared: dict[str, Any] = {"seed": plan.seed, "threshold": smoothed.threshold_}
    if plan.smoothing == "none":
        bounds = smoothed.bounds(split.test.images, tested.index.tolist(), radii)
        clean = smoothed.score(split.test.images, tested.index.tolist())
        rows = certified_conditions(
            subject, tested, bounds, radii, n=0, alpha=None, alpha_kind="total", **shared
        )
        sizes = smoothed.radius(split.test.images, tested.index.tolist(), tested.labels)
        return [clean_condition(subject, tested, clean, n=0, **shared), *rows], sizes
    draws = smoothed.noisy_scores(split.test.images, tested.index.tolist(), store=store("", "certify"))
    clean = percentile_scores(draws, plan.percentile)
    conditions = [clean_condition(subject, tested, clean, n=plan.n, **shared)]
    levels = {plan.alpha_kind: plan.level(len(tested)), "per_image": plan.alpha_per_image}
    for kind, level in levels.items():
        bounds = certify_scores(
            draws, float(plan.sigma or 0.0), radii, level, smoothed.lipschitz, plan.percentile
        )
        conditions += certified_conditions(
            subject, tested, bounds, radii, n=plan.n, alpha=level, alpha_kind=kind, **shared
        )
    return conditions, _radii_at_threshold(smoothed, draws, tested.labels)


def _radii_at_threshold(smoothed: SmoothedDetector, draws: FloatArray, labels: IntArray) -> FloatArray:
    assert smoothed.threshold_ is not None
    assert smoothed.sigma is not None
    anomalous, normal = (
        certified_radius(
            *(draws, smoothed.threshold_, smoothed.sigma, smoothed.alpha, side),
            lipschitz=smoothed.lipschitz,
            percentile=smoothed.percentile,
        )
        for side in ("anomalous", "normal")
    )
    return np.where(labels == 1, anomalous, normal)


def fit_baselines(
    split: DataSplit, radii: Sequence[float], *, skip: Collection[str] = (), seed: int = 0
) -> list[Detector]:
    """Fit the network-free detectors on the train images; what they have to choose is chosen on validation."""
    return [
        fit_baseline(name, split.train.images, split.validation, radii, seed=seed)
        for name in progress([name for name in BASELINES if name not in skip], "network-free rows")
    ]


def load_purifier(folder: str | None) -> Any:
    """Return the diffusion detector in `folder`, whose `reconstruct` denoises for another; None for None."""
    if folder is None:
        return None
    purifier = load_detector(folder)
    if purifier.image_shape is None:
        raise InputError(f"--purifier: {folder} is a name; need the folder of a trained detector")
    if purifier.name not in ("diffusion", "closed_form"):
        raise InputError(f"--purifier: {folder} holds a {purifier.name}, need a diffusion detector")
    return purifier


def baseline_plan(detector: Detector, plan: Plan) -> Plan:
    """Return the plan of a network-free row: `none`, or `reference` at the same sigma."""
    smoothing = default_smoothing(detector)
    sigma = None if smoothing == "none" else (plan.sigma or 1.0)
    return replace(plan, smoothing=smoothing, sigma=sigma)


def _store(
    folder: Path | None,
    detector: Detector,
    split: DataSplit,
    smoothed: SmoothedDetector,
    purifier: Any,
    name: str,
    purpose: str,
) -> ScoreStore | None:
    """Scores under everything that determines them; a changed option is refused, not mixed in."""
    if folder is None or smoothed.smoothing == "none":
        return None
    config = {
        **smoothed.sampling_config(purpose),
        "detector": detector.fingerprint(),
        "data": split.fingerprint(),
        "purifier": "" if purifier is None else purifier.fingerprint(),
        "device": torch.device(smoothed.device).type,
    }
    return ScoreStore(folder / name, config)
