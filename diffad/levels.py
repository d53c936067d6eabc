"""Several noise levels of one detector: the sum of their percentiles, smoothed and certified (`certify.sums`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from certify.shards import Shard
from certify.smoothed_sum import SmoothedSum, level_seed
from certify.store import ScoreStore
from certify.sums import certify_sum, sum_radius
from certify.types import FloatArray
from diffad.conditions import Condition, IntArray, TestedImages, certified_conditions, clean_condition
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.drawn import clean_estimates, draw_store, report_invalid
from diffad.plan import Plan, at_level, smooth, subject_of
from diffad.subject import number_text
from diffad.thresholds import calibrate_sum


def smooth_levels(
    detector: Detector, plan: Plan, purifier: Any = None, shard: Shard | None = None
) -> SmoothedSum:
    """Return the sum of the percentiles at `plan.sigmas`, each level with weight 1 and noise of its own key.

    Under `reference` a diffusion detector's statistics of normals follow the noise of each level.
    """
    levels = [
        smooth(at_level(detector, plan.smoothing, one.sigma), one, purifier, shard)
        for one in level_plans(plan)
    ]
    return SmoothedSum(levels, alpha=plan.alpha_per_image)


def level_plans(plan: Plan) -> list[Plan]:
    """Return the plan of each level by itself, under its own seed; their order is that of `plan.sigmas`."""
    return [
        replace(
            plan,
            sigma=sigma,
            sigmas=(),
            seed=level_seed(plan.seed, level),
            compile=plan.compile and level == 0,  # in place, and the levels share the network
        )
        for level, sigma in enumerate(plan.sigmas)
    ]


def certify_levels(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    *,
    store_folder: Path | None = None,
    purifier: Any = None,
    shard: Shard | None = None,
) -> tuple[list[Condition], FloatArray]:
    """Certify the sum over the levels of a plan on the test images; arguments and results as in `certify_split`.

    Each level keeps its draws in a folder of its own, `sigma=...`, which is laid out as that of a single level.
    """
    smoothed = smooth_levels(detector, plan, purifier, shard)
    subject, tested = subject_of(detector, split, plan), TestedImages.of(split.test)

    def stores(name: str, purpose: str) -> list[ScoreStore | None]:
        return [
            draw_store(
                level_folder(store_folder, level.sigma),
                *(level.detector, split, level, purifier, plan, name, purpose),
            )
            for level in smoothed.levels
        ]

    normals = split.calibration.images[: plan.calibration]
    calibrate_sum(smoothed, normals, plan, stores("calibrate", "calibrate"))
    draws = smoothed.noisy_scores(split.test.images, tested.index.tolist(), stores=stores("", "certify"))
    for level, scores in zip(smoothed.levels, draws, strict=True):
        report_invalid(scores, f"{detector.name} at sigma {level.sigma:g}")
    shared: dict[str, Any] = {"n": plan.n, "seed": plan.seed, "threshold": smoothed.threshold_}
    clean = sum_estimates(draws, tested.labels, smoothed)
    conditions = [clean_condition(subject, tested, clean, **shared)]
    radii = sorted({0.0, *plan.radii})
    for kind, alpha in {plan.alpha_kind: plan.level(len(tested)), "per_image": plan.alpha_per_image}.items():
        bounds = certify_sum(draws, smoothed.terms, radii, alpha)
        conditions += certified_conditions(
            subject, tested, bounds, radii, alpha=alpha, alpha_kind=kind, **shared
        )
    assert smoothed.threshold_ is not None
    options = (draws, smoothed.terms, smoothed.threshold_, plan.alpha_per_image)
    anomalous, normal = sum_radius(*options, "anomalous"), sum_radius(*options, "normal")
    return conditions, np.where(tested.labels == 1, anomalous, normal)


def sum_estimates(draws: Sequence[FloatArray], labels: IntArray, smoothed: SmoothedSum) -> FloatArray:
    """Return the smoothed scores (images,) from the draws of each level; NaN counts against the detector."""
    parts = [
        term.weight * clean_estimates(scores, labels, term.percentile)
        for scores, term in zip(draws, smoothed.terms, strict=True)
    ]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def level_folder(folder: Path | None, sigma: float | None) -> Path | None:
    """Return where the draws of one level lie, inside the folder of their sum."""
    return None if folder is None or sigma is None else folder / f"sigma={number_text(sigma)}"
