"""What an attack returns: the worst images found, and the interval of scores they span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from certify.checks import InputError
from certify.types import ScoreBounds
from diffad.attacks.objective import directions
from diffad.attacks.target import Target
from diffad.attacks.threat import TOLERANCE, Norm, ThreatModel

_RESCORED = 4  # images of a previous result whose scores are looked at again
_ROUNDING = 1e-4  # of the largest score; batches of different make-up differ by 3e-7


@dataclass(frozen=True)
class AttackResult:
    """For each image the worst point found within the threat, the clean one included.

    `images` (n, c, h, w) on the CPU; `scores` and `clean_scores` float64 (n,); `labels` int64 (n,), 0 normal
    and 1 anomalous; `eps` in [0, 1] pixel units. Scores of normals are never below the clean ones, scores of
    anomalies never above. `info` holds the budget, the seed and what the gradients looked like (JSON values).
    `trace` (n, t) is the worst score of each image after every gradient or query, as the search saw it; of a noisy
    target an estimate by the few draws of a step, so not monotone.
    `members`: of an ensemble the scores (n,) that each of its methods reached, by name.
    """

    images: Float[Tensor, "n c h w"]
    scores: Float[np.ndarray, " n"]
    clean_scores: Float[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    norm: Norm
    eps: float
    info: dict[str, Any] = field(default_factory=dict)
    trace: Float[np.ndarray, "n t"] | None = None
    members: dict[str, Float[np.ndarray, " n"]] = field(default_factory=dict)

    def bounds(self) -> ScoreBounds:
        """Return the interval between the clean and the attacked score of each image.

        Normals: lower = clean, upper = attacked. Anomalies: lower = attacked, upper = clean.
        """
        return ScoreBounds(
            np.minimum(self.scores, self.clean_scores), np.maximum(self.scores, self.clean_scores)
        )

    def check_continues(self, threat: ThreatModel, images: Float[Tensor, "m c h w"], labels: Any) -> None:
        """Raise InputError unless an attack on `images` at `threat` may start from this result.

        Of the target nothing is known here: see `check_target`.
        """
        if self.norm != threat.norm or self.eps > threat.eps:
            raise InputError(
                f"previous: it is an attack in {self.norm} at eps {self.eps}, which does not lie within "
                f"{threat.norm} at eps {threat.eps}; give radii in ascending order and one norm"
            )
        if self.images.shape != images.shape or not np.array_equal(self.labels, labels):
            raise InputError("previous: it is an attack on other images or labels")
        away = float(threat.distance(self.images, images.detach().cpu()).max())
        if not away <= self.eps + TOLERANCE:
            raise InputError(
                f"previous: it is an attack on other images, one of which lies {away:.3g} away in {self.norm} (eps "
                f"{self.eps}); give a result on these images, in this order"
            )

    def check_target(self, target: Target, images: Float[Tensor, "m c h w"], names: Sequence[int]) -> None:
        """Raise InputError if this is a result on another target than `target`, whose scores would be reported.

        What a target says of itself has to agree, and of a deterministic one the scores of a few images (m as here),
        clean and attacked. Two noisy detectors under one setting are not told apart: that takes all their draws.
        """
        for key, value in target.describe().items():
            if self.info.get(key) != value:
                raise InputError(
                    f"previous: it is an attack on another target, {key} {self.info.get(key)!r} instead of {value!r}; "
                    "give a result on this one"
                )
        if target.noisy:
            return
        few = np.unique(np.linspace(0, len(images) - 1, _RESCORED).round().astype(np.int64))
        chosen, known = torch.from_numpy(few), np.concatenate([self.clean_scores[few], self.scores[few]])
        shown = torch.cat([images.detach().cpu()[chosen], self.images[chosen]])
        scores = target.scores(shown, [names[row] for row in (*few, *few)], "select")
        if not np.allclose(scores, known, rtol=0.0, atol=_ROUNDING * max(1e-30, float(np.abs(known).max()))):
            raise InputError(
                "previous: the detector gives its images other scores; give a result on this detector, and no "
                "previous one if its scores are random"
            )


def keep_worse(
    labels: Int64[np.ndarray, " n"],
    first: tuple[Tensor, Float[np.ndarray, " n"]],
    second: tuple[Tensor, Float[np.ndarray, " n"]],
) -> tuple[Tensor, Float[np.ndarray, " n"]]:
    """Return of two (images, scores) the worse for each image, the first where they tie."""
    images, scores = first[0].clone(), first[1].copy()
    worse = directions(labels) * second[1] > directions(labels) * first[1]
    images[worse], scores[worse] = second[0][worse], second[1][worse]
    return images, scores
