"""One number for several outlier sets: the unweighted mean of one number a set, never that of the pooled images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from certify.checks import InputError
from certify.console import say
from certify.metrics import auroc
from certify.types import FloatArray, ScoreBounds, Side
from diffad.data import DataSplit
from diffad.data.cues import reordered, resampled
from diffad.data.protocols import MEAN, outlier_set
from diffad.detector import Detector

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def is_ood(options: Mapping[str, Any]) -> bool:
    """Return whether data with these options (`DataSplit.options`, or those in a manifest) fall into outlier sets."""
    return options.get("protocol") == "ood"


def outlier_sets(options: Mapping[str, Any], labels: Any, defects: Sequence[str]) -> dict[str, Mask]:
    """Return for each outlier set by name the mask (images,) of all normals and of its own images.

    Empty for data under another protocol than `ood`.
    """
    if not is_ood(options):
        return {}
    normal = np.asarray(labels) == 0
    owner = np.array([outlier_set(defect) for defect in defects])
    names = dict.fromkeys(str(name) for name in owner[~normal])
    if "" in names:
        raise InputError("outlier sets: an anomaly names none; under protocol ood a defect reads SET/CLASS")
    return {name: normal | (~normal & (owner == name)) for name in names}


def auroc_over_sets(
    bounds: ScoreBounds,
    labels: Any,
    defects: Sequence[str],
    options: Mapping[str, Any],
    side: Side = "both",
    unattacked: ScoreBounds | None = None,
) -> dict[str, float]:
    """Return the AUROC of every outlier set by name, and their unweighted mean under "mean".

    Of data under another protocol, the mean is the AUROC of all images. Arguments as in `certify.auroc`.
    """
    known = np.asarray(labels)
    sets = outlier_sets(options, known, defects) or {MEAN: np.ones(len(known), dtype=np.bool_)}
    found = {
        name: float(
            auroc(
                part(bounds, keep), known[keep], side, None if unattacked is None else part(unattacked, keep)
            )
        )
        for name, keep in sets.items()
    }
    return {**found, MEAN: float(np.mean(list(found.values())))}


def part(bounds: ScoreBounds, keep: Mask) -> ScoreBounds:
    """Return the bounds (images,) of some images."""
    return ScoreBounds(bounds.lower[keep], bounds.upper[keep])


def cue_aurocs(detector: Detector, split: DataSplit, device: str = "cpu") -> dict[str, float]:
    """Return how far a detector tells test normals from copies of themselves that show the same.

    The AUROC of copy against original, .5 where the detector sees no difference: `cue_resampling` of copies shrunk and
    enlarged again, `cue_channel_order` of colour images as BGR. What it has here, it may have on an outlier set
    that was resampled, or read in another order, and owe to nothing else.
    """
    normals = split.test.normals().images
    copies = {"cue_resampling": resampled(normals)}
    if normals.shape[1] == 3 and not torch.equal(normals, reordered(normals)):
        copies["cue_channel_order"] = reordered(normals)
    detector.to(device)
    known = _scores(detector, normals, device)
    truth = [0] * len(normals) + [1] * len(normals)
    found = {
        name: float(roc_auc_score(truth, np.concatenate([known, _scores(detector, these, device)])))
        for name, these in copies.items()
    }
    detector.to("cpu")
    words = ", ".join(
        f"{name.removeprefix('cue_').replace('_', ' ')} {area:.3f}" for name, area in found.items()
    )
    say(f"probe: {detector.name} tells normals from copies by AUROC {words} (.5: not at all)")
    return found


def _scores(detector: Detector, images: torch.Tensor, device: str) -> FloatArray:
    return detector.score_array(images.to(device))
