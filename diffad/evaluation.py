"""From a detector and a data set to conditions: certified, and the network-free rows beside them.

The commands `certify` and `diffad attack` are these functions with options, progress and files around them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from certify.adaptive_auroc import adaptive_bounds
from certify.certificate import certified_radius, certify_scores
from certify.console import progress, say
from certify.files import write_json
from certify.pool import DrawPool
from certify.shards import Shard
from certify.smoothing import SmoothedDetector
from certify.types import FloatArray, ScoreBounds, Side
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
from diffad.drawn import clean_estimates, draw_store, report_invalid
from diffad.levels import certify_levels
from diffad.plan import Plan, smooth, subject_of
from diffad.thresholds import calibrate

# What needs no network; every certified table carries these rows (docs/certificates.md says why).
BASELINES = ("pixel_mean", "pca", "pixel_nn", "patch_nn", "closed_form")
# Looks of an adaptive certificate come at multiples of this, whatever the batch size, so that no bound depends on it.
LOOK_MULTIPLE = 250
# Adaptive draws go on until the AUROC of each of these is known.
ADAPTIVE_SIDES: tuple[Side, ...] = ("in", "out", "both")


def certify_split(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    *,
    store_folder: Path | None = None,
    purifier: Any = None,
    shard: Shard | None = None,
) -> tuple[list[Condition], FloatArray | None]:
    """Certify a fitted detector on the test images.

    Returns the clean and certified conditions, and the certified radius (images,) of the right decision at the
    calibrated threshold (0 where there is none), at `alpha_per_image`; None of an adaptive plan, whose draws serve
    the AUROC alone. Radius 0 is always certified: `in` and
    `out` need its confidence bounds. The clean score is the percentile of the certification draws. With
    `store_folder` the draws are kept and an interrupted run goes on; processes that share the work (`shard`)
    meet there, and each returns the whole.
    """
    if plan.sigmas:
        return certify_levels(
            detector, split, plan, store_folder=store_folder, purifier=purifier, shard=shard
        )
    smoothed = smooth(detector, plan, purifier, shard)
    subject, tested = subject_of(detector, split, plan), TestedImages.of(split.test)
    store = partial(draw_store, store_folder, detector, split, smoothed, purifier, plan)
    normals = split.calibration.images[: plan.calibration]
    calibrate(smoothed, normals, plan, store("calibrate", "calibrate"))
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
    if plan.adaptive:
        pool = smoothed.draw_pool(split.test.images, tested.index.tolist(), store=store("", "certify"))
        return _adaptively(smoothed, pool, subject, tested, plan, store_folder), None
    draws = smoothed.noisy_scores(split.test.images, tested.index.tolist(), store=store("", "certify"))
    report_invalid(draws, detector.name)
    clean = clean_estimates(draws, tested.labels, plan.percentile)
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


def _adaptively(
    smoothed: SmoothedDetector,
    pool: DrawPool,
    subject: Subject,
    tested: TestedImages,
    plan: Plan,
    store_folder: Path | None,
) -> list[Condition]:
    """Draw each image as far as the AUROC at the plan's radii needs it; see `certify.adaptive_auroc`.

    What each image used is kept in `samples.json` beside the draws.
    """
    radii, level = [radius for radius in plan.radii if radius > 0], plan.level(len(tested))
    found = adaptive_bounds(
        pool,
        tested.labels,
        sigma=float(plan.sigma or 0.0),
        radii=radii,
        max_samples=plan.n,
        alpha_per_image=level,
        sides=ADAPTIVE_SIDES,
        lipschitz=smoothed.lipschitz,
        percentile=plan.percentile,
        tolerance=plan.tolerance,
        multiple=LOOK_MULTIPLE,
    )
    saved = 1.0 - pool.passes / (found.looks[-1] * len(tested))
    say(
        f"{subject.label}: used {found.samples.mean():.0f} draws an image on average, at most {found.looks[-1]}; "
        f"{100 * saved:.0f} % of the forward passes saved; undecided pairs at most {100 * found.undecided.max():.2g} %"
    )
    if store_folder is not None:
        used = {"samples": found.samples.tolist(), "looks": list(found.looks), "passes": pool.passes}
        write_json(
            store_folder / "samples.json", {"image_index": tested.index.tolist(), **used, "saved": saved}
        )
    draws = [pool.draws(row)[: found.samples[row]] for row in range(len(tested))]
    clean = [
        clean_estimates(one[None], tested.labels[row : row + 1], plan.percentile)[0]
        for row, one in enumerate(draws)
    ]
    bounds = ScoreBounds(
        np.vstack([found.unattacked.lower, found.bounds.lower]),
        np.vstack([found.unattacked.upper, found.bounds.upper]),
    )
    shared: dict[str, Any] = {"n": plan.n, "seed": plan.seed, "threshold": smoothed.threshold_}
    return [
        clean_condition(subject, tested, np.array(clean), **shared),
        *certified_conditions(
            subject, tested, bounds, [0.0, *radii], alpha=level, alpha_kind=plan.alpha_kind, **shared
        ),
    ]


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
    split: DataSplit,
    radii: Sequence[float],
    *,
    skip: Collection[str] = (),
    only: Collection[str] = BASELINES,
    seed: int = 0,
) -> list[Detector]:
    """Fit the network-free detectors on the train images; what they have to choose is chosen on validation."""
    names = [name for name in BASELINES if name in only and name not in skip]
    return [
        fit_baseline(name, split.train.images, split.validation, radii, seed=seed)
        for name in progress(names, "network-free rows")
    ]
