"""The smallest perturbation that carries a score across a threshold: the dual of the certified radius.

    found = minimal_distance(detector.score, images, labels, detector.threshold_, norm="l2")
    certified <= found.eps          # of the same score, threshold and norm, for every image

An attack at a fixed radius asks how far a score can be carried; this one fixes the score and asks for the radius.
What it finds is an upper bound on the true distance, as a certified radius is a lower one. Of a noisy target that is so
of the score by the evaluation draws, one estimate: of the score that it estimates the distance may be larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from certify.checks import InputError, check_images
from certify.console import progress
from certify.sampler import check_indices
from certify.types import FloatArray
from diffad.attacks.attack import as_target
from diffad.attacks.methods import ATTACKS, Preset, find_preset
from diffad.attacks.objective import IntArray, check_attack_labels
from diffad.attacks.radii import Hunt
from diffad.attacks.threat import Norm, ThreatModel

_FIRST = 1 / 64  # of the largest radius: what the first round tries


@dataclass(frozen=True)
class MinimalDistance:
    """The nearest images found that are on the wrong side of `threshold`.

    A normal image is carried across when its score exceeds the threshold, an anomaly when it does not. `eps` (n,) is
    the distance in `norm`, 0 for an image that is on the wrong side as it is, and infinity where no attack up to the
    largest radius found one: `images` and `scores` are then the clean ones.
    """

    eps: Float[np.ndarray, " n"]
    images: Float[Tensor, "n c h w"]
    scores: Float[np.ndarray, " n"]
    clean_scores: Float[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    threshold: float
    norm: Norm
    info: dict[str, Any]


def minimal_distance(
    detector: Any,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    threshold: float,
    *,
    norm: str,
    method: str = "pgd",
    steps: int | None = None,
    rounds: int = 16,
    largest: float | None = None,
    eot: int = 16,
    seed: int = 0,
    indices: Sequence[int] | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
) -> MinimalDistance:
    """Find for each image the smallest ball in which an attack carries its score across a threshold.

    Every image has its own radius, and images of different progress share their batches. The radius is doubled from
    1/64 of the largest until an attack succeeds (at most 7 rounds), then the bracket is halved; each attack starts
    where the one before ended. The reported scores decide, so that every returned image really is on the wrong side.
    Of a noisy target they are estimates by `evaluate` draws, which choose the image as well as judge it: `eps` bounds
    the distance of that estimate, and may lie a little below that of the true percentile or mean (more draws, less).

    Args:
        detector, images, labels, eot, seed, indices, batch_size, device: as of `attack`.
        threshold: a normal image is carried across when its score exceeds it, an anomaly when it does not.
        norm: `l2` or `linf`; `largest` is the largest radius in [0, 1] pixel units (default: all images are allowed).
        method: a name of ATTACKS that needs no material; `steps` of it in each of the `rounds`.

    Raises InputError for inputs out of range, and for a method that cannot be used here.
    """
    if not math.isfinite(threshold):
        raise InputError(f"threshold: got {threshold}, need a finite score")
    if rounds < 1:
        raise InputError(f"rounds: got {rounds}, need at least 1")
    check_images(images)
    whole = 1.0 if norm == "linf" else math.sqrt(images[0].numel())
    threat = ThreatModel.parse(norm, whole if largest is None else largest)
    if threat.eps == 0:
        raise InputError("largest: got 0, need a positive radius")
    preset = find_preset(method, steps, 1)
    _check_method(preset, threat)
    target = as_target(detector, batch_size, device or images.device)
    label_array, clean = check_attack_labels(labels, len(images)), images.detach().cpu()
    names = check_indices(range(len(images)) if indices is None else indices, len(images))
    clean_scores = target.scores(clean, names, "evaluate")
    brackets = _Brackets.around(clean, clean_scores, label_array, threshold, threat)
    hunt = Hunt(target, preset, threat.norm, names, seed, eot, batch_size or target.batch_size)
    for turn in progress(range(rounds), f"minimal distance {threat.norm}"):
        rows = brackets.open()
        if len(rows):
            radii = brackets.radii(rows)
            points = hunt.attack(clean[rows], brackets.last[rows], label_array[rows], rows, radii, turn)
            scores = target.scores(points, [names[row] for row in rows], "evaluate")
            brackets.narrow(rows, radii, points, scores)
    threat.check(brackets.best, clean)
    info = {
        "attack": method,
        "steps": preset.steps,
        "rounds": rounds,
        "largest": threat.eps,
        "seed": seed,
        "resolution": list(images.shape[1:]),
        "found": int(np.isfinite(brackets.high).sum()),
        "gradients": hunt.count.gradients,
        "score_queries": hunt.count.queries,
        **({"eot": eot} if target.noisy else {}),
        **target.describe(),
    }
    return MinimalDistance(
        eps=brackets.high,
        images=brackets.best,
        scores=brackets.scores,
        clean_scores=clean_scores,
        labels=label_array,
        threshold=float(threshold),
        norm=threat.norm,
        info=info,
    )


def _check_method(preset: Preset, threat: ThreatModel) -> None:
    method = ATTACKS[preset.method]
    if method.material or threat.norm not in method.norms or preset.restarts > 1:
        usable = ", ".join(
            name for name, other in ATTACKS.items() if not other.material and threat.norm in other.norms
        )
        raise InputError(
            f"minimal_distance: cannot use {preset.method!r} here; in {threat.norm} use {usable}"
        )


@dataclass
class _Brackets:
    """What is known of each image: no attack succeeded at `low`, one did at `high`, with `best`; `last` is its end."""

    clean: Tensor
    threat: ThreatModel
    labels: IntArray
    threshold: float
    low: FloatArray
    high: FloatArray
    best: Tensor
    scores: FloatArray
    last: Tensor

    @classmethod
    def around(
        cls, clean: Tensor, scores: FloatArray, labels: IntArray, threshold: float, threat: ThreatModel
    ) -> _Brackets:
        """Begin with the clean images; those on the wrong side are settled at distance 0."""
        high = np.where(_across(scores, labels, threshold), 0.0, np.inf)
        low = np.zeros(len(clean))
        return cls(clean, threat, labels, threshold, low, high, clean.clone(), scores.copy(), clean.clone())

    def open(self) -> IntArray:
        """Return the numbers of the images for which there is a smaller or a larger radius to try."""
        failed = np.isinf(self.high) & (self.low >= self.threat.eps)
        return np.flatnonzero((self.high > 0) & ~failed)

    def radii(self, rows: IntArray) -> FloatArray:
        """Return the next radius of each: the middle of its bracket, or twice the one at which all failed."""
        low, high = self.low[rows], self.high[rows]
        wider = np.minimum(np.maximum(2 * low, self.threat.eps * _FIRST), self.threat.eps)
        return np.where(np.isinf(high), wider, low + (np.where(np.isinf(high), low, high) - low) / 2)

    def narrow(self, rows: IntArray, radii: FloatArray, points: Tensor, scores: FloatArray) -> None:
        """Take in the points (m, c, h, w) of attacks at `radii` and their scores (m,)."""
        across = _across(scores, self.labels[rows], self.threshold)
        distance = self.threat.distance(points, self.clean[rows]).numpy()
        closer = across & (distance < self.high[rows])
        self.low[rows[~across]] = radii[~across]
        self.high[rows[closer]], self.scores[rows[closer]] = distance[closer], scores[closer]
        self.best[rows[closer]], self.last[rows] = points[closer], points


def _across(scores: FloatArray, labels: IntArray, threshold: float) -> Bool[np.ndarray, " n"]:
    """Return which images are on the wrong side: normals above the threshold, anomalies not above."""
    return np.where(labels == 0, scores > threshold, scores <= threshold)
