"""Rows of metrics derived from a run: AUROC, AP, FPR95 and rates of every condition and side.

`side` says who is attacked: `in` the normal images, `out` the anomalous ones, `both`, or nobody (`clean`).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from certify.confidence import ConfidenceMethod, auroc_confidence, tpr_fpr_confidence
from certify.metrics import (
    auroc,
    average_precision,
    fpr_at_tpr,
    rate_interval,
    tpr_fpr_at_threshold,
)
from certify.types import ScoreBounds, Side
from certify.uncertainty import delong_interval
from diffad.conditions import Condition
from diffad.outlier_sets import Mask, outlier_sets
from diffad.recorded_checks import failed_checks
from diffad.resampled import resampled_interval, resampled_mean_interval
from diffad.runs import Run

Row = dict[str, Any]
ATTACKED: tuple[Side, ...] = ("in", "out", "both")
CORRECTED = ("failures", "population")  # kinds of alpha whose metrics pay for bounds that may be wrong


def auroc_table(run: Run, *, bootstrap: bool = True) -> list[Row]:
    """One row for each condition and side: the metrics with what they rest on, ready for JSON.

    Keys: the fields of `Subject`; condition, norm, radius, side, n, seed; alpha (one-sided level an image)
    and alpha_kind; normals, anomalies; auroc, ap, fpr95 (when certified: lower, lower and upper bound);
    infinite, the share of images whose attacked end has no bound; threshold, with tpr and fpr at it (None
    without one). Absent where there is nothing to say: joint_alpha, that of all cells of one subject under `--joint`;
    threshold_rule, how the threshold was set; failed_checks, the mandatory checks that an attack failed (see
    `diffad.recorded_checks`). Of these
    `failures` and `population` have auroc, tpr and fpr only (`certify.confidence`).
    `*_interval` is the 95 % interval over the test images: DeLong's for auroc, Clopper-Pearson's for a rate
    (fpr95: its threshold given); the level alpha is about the certification noise and says nothing on that.
    auroc_bootstrap is the bootstrap's, of clean and of certified rows of side `both` alone; None without `bootstrap`.
    Under protocol `ood` every metric is the unweighted mean over outlier sets, each against all normals, auroc_sets
    holds the AUROC of each, and there are no intervals but that of fpr and auroc_bootstrap, which draws the normals
    once for all sets.
    The sides `in` and `out` of a certificate need its bounds at radius 0 and are left out without them.
    """
    return [
        _row(run, condition, side, bootstrap)
        for condition in run.conditions
        for side in _sides(run, condition)
    ]


def _sides(run: Run, condition: Condition) -> tuple[Side, ...]:
    if condition.condition == "clean":
        return ("clean",)
    return ATTACKED if _unattacked(run, condition) is not None else ("both",)


def _unattacked(run: Run, condition: Condition) -> ScoreBounds | None:
    """What `in` and `out` take for the images left alone; None for a certificate without radius 0."""
    if condition.condition != "certified":
        return condition.unattacked()
    for other in run.of(condition.subject, "certified", condition.norm):
        same = (other.n, other.alpha_kind, other.alpha) == (
            condition.n,
            condition.alpha_kind,
            condition.alpha,
        )
        if other.radius == 0.0 and same and np.array_equal(other.images.index, condition.images.index):
            return other.bounds
    return None


def _row(run: Run, condition: Condition, side: Side, bootstrap: bool) -> Row:
    labels, threshold = condition.images.labels, run.threshold(condition.subject)
    at_zero, failed = _unattacked(run, condition), failed_checks(run.manifest, condition)
    normals, anomalies = int((labels == 0).sum()), int((labels == 1).sum())
    sets = outlier_sets(run.manifest["data"].get("options", {}), labels, condition.images.defects)
    found = _by_set(condition, side, at_zero, threshold, sets)
    values = _mean(list(found.values())) if sets else _metrics(condition, side, at_zero, threshold)
    # of a mean over sets, only the false positives are a share of one number of images
    rates = {"fpr": normals} if sets else {"fpr95": normals, "tpr": anomalies, "fpr": normals}
    intervals = {name: _interval(values[name], count) for name, count in rates.items()}
    return {
        **condition.subject._asdict(),
        "condition": condition.condition,
        "norm": condition.norm,
        "radius": condition.radius,
        "method": condition.method,
        "side": side,
        "n": condition.n,
        "seed": condition.seed,
        "alpha": condition.alpha,
        "alpha_kind": condition.alpha_kind,
        "normals": normals,
        "anomalies": anomalies,
        **values,
        "auroc_interval": None if sets else _test_set_interval(condition, side, at_zero),
        "auroc_bootstrap": _bootstrap_interval(condition, side, at_zero, sets) if bootstrap else None,
        **{f"{name}_interval": intervals.get(name) for name in ("fpr95", "tpr", "fpr")},
        "infinite": infinite_share(condition),
        "threshold": threshold,
        **({} if run.joint_alpha is None else {"joint_alpha": run.joint_alpha}),
        **({} if run.threshold_rule is None else {"threshold_rule": run.threshold_rule}),
        **({} if failed is None else {"failed_checks": failed}),
        **({"auroc_sets": {name: one["auroc"] for name, one in found.items()}} if sets else {}),
    }


def _by_set(
    condition: Condition,
    side: Side,
    at_zero: ScoreBounds | None,
    threshold: float | None,
    sets: dict[str, Mask],
) -> dict[str, dict[str, float | None]]:
    """The metrics of all normals against each outlier set; statements that cost confidence share it between sets."""
    found = {}
    for name, keep in sets.items():
        index = condition.images.index[keep]
        order = np.flatnonzero(keep)[np.argsort(index)]  # `take` sorts
        calm = None if at_zero is None else ScoreBounds(at_zero.lower[order], at_zero.upper[order])
        found[name] = _metrics(condition.take(index), side, calm, threshold, statements=len(sets))
    return found


def _mean(found: list[dict[str, float | None]]) -> dict[str, float | None]:
    """The unweighted mean of each metric over outlier sets; None where there is no such statement."""
    means: dict[str, float | None] = {}
    for name in found[0]:
        known = [one[name] for one in found]
        means[name] = None if None in known else float(np.mean(np.array(known, dtype=np.float64)))
    return means


def _metrics(
    condition: Condition,
    side: Side,
    at_zero: ScoreBounds | None,
    threshold: float | None,
    statements: int = 1,
) -> dict[str, float | None]:
    """The metrics of one condition; those that have no such statement are None."""
    given = (condition.bounds, condition.images.labels, side, at_zero)
    if condition.alpha_kind in CORRECTED:
        return _corrected(condition, side, at_zero, threshold, statements)
    tpr, fpr = (None, None)
    if threshold is not None:
        rates = tpr_fpr_at_threshold(*given[:2], threshold, *given[2:])
        tpr, fpr = float(rates[0]), float(rates[1])
    return {
        "auroc": float(auroc(*given)),
        "ap": float(average_precision(*given)),
        "fpr95": float(fpr_at_tpr(*given)),
        "tpr": tpr,
        "fpr": fpr,
    }


def _corrected(
    condition: Condition,
    side: Side,
    at_zero: ScoreBounds | None,
    threshold: float | None,
    statements: int,
) -> dict[str, float | None]:
    """AUROC and rates of bounds that hold image by image: `alpha` is both theirs and that of the statement.

    The AUROC is one statement at alpha, the two rates are another; of several `statements` that are to hold together,
    one an outlier set, each has its share.
    """
    given = (condition.bounds, condition.images.labels)
    level = float(condition.alpha or 0.0)
    method = cast(ConfidenceMethod, condition.alpha_kind)
    levels: Any = {"method": method, "alpha": level / statements, "alpha_per_image": level}
    tpr, fpr = (None, None)
    if threshold is not None:
        found = tpr_fpr_confidence(*given, threshold, side, at_zero, **levels)
        tpr, fpr = (float(one.value) for one in found)
    value = auroc_confidence(*given, side, at_zero, **levels).value
    return {"auroc": float(value), "ap": None, "fpr95": None, "tpr": tpr, "fpr": fpr}


def _test_set_interval(condition: Condition, side: Side, at_zero: ScoreBounds | None) -> list[float] | None:
    """DeLong's 95 % interval of the AUROC of these ends over the test images.

    None for a single image of a label, and where the AUROC stated is not that of the ends.
    """
    labels = condition.images.labels
    if condition.alpha_kind in CORRECTED or min((labels == 0).sum(), (labels == 1).sum()) < 2:
        return None
    found = delong_interval(condition.bounds, labels, side, at_zero)
    return [found.low, found.high]


def _bootstrap_interval(
    condition: Condition, side: Side, at_zero: ScoreBounds | None, sets: dict[str, Mask]
) -> list[float] | None:
    """The bootstrap's, beside DeLong's, for the rows that tables print: nobody attacked, and all of a certificate."""
    printed = condition.condition == "clean" or (condition.condition == "certified" and side == "both")
    if not printed or condition.alpha_kind in (*CORRECTED, "per_image"):
        return None
    if sets:
        return resampled_mean_interval(condition, sets, side, at_zero)
    return resampled_interval(condition, side, at_zero)


def _interval(rate: float | None, trials: int) -> list[float] | None:
    if rate is None:
        return None
    low, high = rate_interval(round(rate * trials), trials)
    return [float(low), float(high)]


def infinite_share(condition: Condition) -> float:
    """Share of images whose attacked end (upper of normal, lower of anomalous ones) is infinite."""
    ends = np.where(condition.images.labels == 0, condition.bounds.upper, -condition.bounds.lower)
    return float(np.isposinf(ends).mean())


def defect_table(run: Run) -> list[Row]:
    """Clean AUROC of every kind of defect against all normals, one row for each subject and kind."""
    rows = []
    for condition in run.conditions:
        if condition.condition != "clean":
            continue
        defects, labels = np.array(condition.images.defects), condition.images.labels
        for kind in sorted(set(defects[labels == 1])):
            keep = (labels == 0) | (defects == kind)
            scores = ScoreBounds(condition.bounds.lower[keep], condition.bounds.upper[keep])
            count = int((defects[labels == 1] == kind).sum())
            value = float(auroc(scores, labels[keep], "clean"))
            rows.append(
                {**condition.subject._asdict(), "defect": str(kind), "anomalies": count, "auroc": value}
            )
    return rows
