"""The certificate of the randomised detector, which scores each image by one fresh draw (`certify.one_draw`).

Nobody takes a percentile: K forward passes an image bound what AUROC, TPR and FPR are under attack, in expectation over
the noise. It is another detector than the smoothed one, so its numbers have a table of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from certify.one_draw import one_draw_auroc, one_draw_rates
from certify.shards import Shard
from certify.text import ceil_text, floor_text, short_text
from certify.types import SIDES, FloatArray, Side
from certify.uncertainty import placement_values
from diffad.conditions import TestedImages
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.drawn import draw_store, report_invalid
from diffad.metric_rows import Row
from diffad.outlier_sets import outlier_sets
from diffad.plan import Plan, smooth, subject_of
from diffad.ranking import HALF
from diffad.tables import NOTHING, align, find, over_sets
from diffad.thresholds import quantile_threshold


def one_draw_rows(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    *,
    store_folder: Path | None = None,
    purifier: Any = None,
    shard: Shard | None = None,
) -> list[Row]:
    """Certify one draw an image of a fitted detector, from `plan.n` draws of each test image.

    Returns:
        One row for each L2 radius and side (`clean` at radius 0), with the fields of `Subject`; side, radius, n,
        alpha (of this AUROC, and of its two rates together), normals, anomalies; auroc and tpr, lower bounds, and fpr,
        an upper one, of their expectation over the noise; `*_estimate` of each, nobody attacking; threshold: the
        `plan.quantile` of single draws of held-out normals, one each, so that a fresh normal, scored once, exceeds it
        with probability at most 1 - quantile. Under protocol `ood` everything is the unweighted mean over outlier sets,
        each with its share of alpha, and auroc_sets holds the AUROC of each.
    """
    smoothed = smooth(detector, plan, purifier, shard)
    store = partial(draw_store, store_folder, detector, split, smoothed, purifier, plan)
    normals = split.calibration.images[: plan.calibration]
    once = smooth(detector, replace(plan, n=1), purifier, shard)
    first = once.noisy_scores(normals, range(len(normals)), "calibrate", store("calibrate", "calibrate"))[
        :, 0
    ]
    threshold = quantile_threshold(first, plan)
    tested = TestedImages.of(split.test)
    draws = smoothed.noisy_scores(split.test.images, tested.index.tolist(), store=store("", "certify"))
    report_invalid(draws, detector.name)
    level = plan.alpha / one_draw_statements(plan)
    sets = outlier_sets(split.options, tested.labels, tested.defects)
    parts = [(draws[keep], tested.labels[keep]) for keep in sets.values()] or [(draws, tested.labels)]
    given = (float(plan.sigma or 0.0), sorted({0.0, *plan.radii}), level / len(parts))
    shared = {
        **subject_of(detector, split, plan)._asdict(),
        **{"n": plan.n, "seed": plan.seed, "alpha": level, "threshold": threshold},
        **{"normals": int((tested.labels == 0).sum()), "anomalies": int((tested.labels == 1).sum())},
        **_mean([estimates(*part, threshold) for part in parts]),
    }
    rows: list[Row] = []
    for side in SIDES:
        found = [_bounds(part, threshold, given, side, smoothed.lipschitz) for part in parts]
        for place, radius in enumerate(given[1]):
            if (side == "clean") == (radius == 0.0):
                at = [{name: float(values[place]) for name, values in one.items()} for one in found]
                row = {**shared, "norm": "l2", "radius": radius, "side": side, **_mean(at)}
                if sets:
                    row["auroc_sets"] = {name: one["auroc"] for name, one in zip(sets, at, strict=True)}
                rows.append(row)
    return rows


def _bounds(
    part: tuple[FloatArray, Any],
    threshold: float,
    given: tuple[float, list[float], float],
    side: Side,
    lipschitz: float,
) -> dict[str, FloatArray]:
    """Bounds (radii,) of AUROC, TPR and FPR of some draws (images, K) and their labels."""
    draws, labels = part
    auroc = one_draw_auroc(draws, labels, *given, side, lipschitz)
    tpr, fpr = one_draw_rates(draws, labels, threshold, *given, side, lipschitz)
    return {"auroc": auroc, "tpr": tpr, "fpr": fpr}


def _mean(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def one_draw_statements(plan: Plan) -> int:
    """Statements that share alpha when `joint`: AUROC and rates, of nobody attacked and of each radius and side."""
    above = sum(radius > 0 for radius in plan.radii)
    return 2 * (3 * above + 1) if plan.joint else 1


def estimates(draws: FloatArray, labels: Any, threshold: float) -> dict[str, float]:
    """Return AUROC, TPR and FPR of single draws (images, K) without an attacker; a NaN draw loses."""
    anomalies = np.where(np.isnan(draws), -np.inf, draws)[np.asarray(labels) == 1].ravel()
    normals = np.where(np.isnan(draws), np.inf, draws)[np.asarray(labels) == 0].ravel()
    return {
        "auroc_estimate": float(placement_values(anomalies, normals)[0].mean()),
        "tpr_estimate": float((anomalies > threshold).mean()),
        "fpr_estimate": float((normals > threshold).mean()),
    }


def format_one_draw(rows: Sequence[Row]) -> str:
    """Plain text: one line a radius; AUROC and TPR floored, FPR ceiled."""
    first = rows[0]
    header = ["l2 radius", "AUROC estimated", "certified: in", "out", "both"]
    lines = [[*header, "TPR estimated", "certified", "FPR estimated", "certified"]]
    for radius in sorted({row["radius"] for row in rows}):
        own = [row for row in rows if row["radius"] == radius]
        sides = [find(own, side=side) or own[0] for side in ("in", "out", "both")]
        auroc = [NOTHING if row["auroc"] <= HALF else floor_text(row["auroc"], 3) for row in sides]
        rates = [f"{first['tpr_estimate']:.3f}", floor_text(sides[2]["tpr"], 3)]
        rates += [f"{first['fpr_estimate']:.3f}", ceil_text(sides[2]["fpr"], 3)]
        lines.append([short_text(radius), f"{first['auroc_estimate']:.3f}", *auroc, *rates])
    about = over_sets(first)
    return f"{about.lstrip(', ')}\n{align(lines)}" if about else align(lines)
