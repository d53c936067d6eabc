"""Noisy scores of a plan: where they are kept, what they estimate, and what was wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from certify.certificate import invalid_draws, percentile_scores
from certify.checks import InputError
from certify.console import say
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from certify.types import FloatArray
from diffad.conditions import IntArray
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.plan import Plan


def draw_store(
    folder: Path | None,
    detector: Detector,
    split: DataSplit,
    smoothed: SmoothedDetector,
    purifier: Any,
    plan: Plan,
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
        **({"compile": True} if plan.compile else {}),
    }
    return ScoreStore(folder / name, config)


def clean_estimates(draws: FloatArray, labels: IntArray, percentile: float) -> FloatArray:
    """Return the smoothed scores (images,) from draws (images, n); NaN counts against the detector.

    Raises `InputError` where so many draws are NaN that the percentile itself is one.
    """
    worst = np.where(labels == 1, -np.inf, np.inf)[:, None]
    scores = percentile_scores(np.where(np.isnan(draws), worst, draws), percentile)
    if not np.isfinite(scores).all():
        image = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise InputError(
            f"image {image}: {int(np.isnan(draws[image]).sum())} of {draws.shape[1]} noisy scores are NaN, so its "
            "smoothed score is unknown; mend the detector, or leave the image out"
        )
    return scores


def report_invalid(draws: FloatArray, name: str) -> None:
    """Say how many draws were NaN; they count as -inf in lower and +inf in upper ends."""
    invalid = invalid_draws(draws)
    if invalid.any():
        say(
            f"warning: {name}: {int(invalid.sum())} noisy scores of {int((invalid > 0).sum())} images are NaN and "
            "count against the detector"
        )
