"""What an attack returns: the worst images found, and the interval of scores they span."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64
from torch import Tensor

from certify.checks import InputError
from certify.types import ScoreBounds
from diffad.attacks.objective import directions
from diffad.attacks.threat import Norm, ThreatModel


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
        """Raise InputError unless an attack on `images` at `threat` may start from this result."""
        if self.norm != threat.norm or self.eps > threat.eps:
            raise InputError(
                f"previous: it is an attack in {self.norm} at eps {self.eps}, which does not lie within "
                f"{threat.norm} at eps {threat.eps}; give radii in ascending order and one norm"
            )
        if self.images.shape != images.shape or not np.array_equal(self.labels, labels):
            raise InputError("previous: it is an attack on other images or labels")


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
