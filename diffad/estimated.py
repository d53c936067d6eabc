"""Attacked scores that are estimates: whether the noise of their draws explains that a certificate seems to beat them.

The smoothed score of an attacked image is a percentile over noise, and a row holds its estimate from n draws. With few
draws an estimate may lie beyond a valid bound, and estimation noise alone lowers an AUROC. What an attack run keeps to
judge its images by (`diffad.evidence`) says how far: fresh draws, whose order statistics hold each score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certify.types import ScoreBounds
from diffad.conditions import Condition
from diffad.evidence import Evidence, read_evidence

LEVEL = 0.001  # that the ends of some score of one comparison are wrong
REMEDY = "or the draws are too few to estimate these scores: raise the --n of the attack"


def is_estimate(condition: Condition) -> bool:
    """Whether the scores of a clean or attacked condition are estimated from draws."""
    return condition.n > 0 and condition.subject.smoothing not in ("", "none")


@dataclass(frozen=True)
class Judges:
    """The evidence of attacks in some run folders; `whole` holds each attack's condition, all images, by its key."""

    folders: tuple[Path, ...]
    whole: Mapping[tuple[Any, ...], Condition]

    @classmethod
    def of(cls, folders: Sequence[Path], conditions: Sequence[Condition]) -> Judges:
        """Those of the attacks among `conditions`."""
        return cls(tuple(folders), {one.key: one for one in conditions if one.condition == "attack"})

    def evidence(self, attacked: Condition) -> Evidence | None:
        """Return the evidence of an attack, whichever of its images are asked about; None where none judges."""
        whole = self.whole[attacked.key]
        found = (read_evidence(folder, whole) for folder in self.folders)
        return next((one for one in found if one is not None and one.judges), None)

    def best_case(
        self, attacked: Condition, at_zero: ScoreBounds | None
    ) -> tuple[ScoreBounds, ScoreBounds] | None:
        """Return the best scores (images,), attacked and not, that the draws leave possible; None without draws.

        Anomalies lie at their upper ends and normal images at their lower ones. The scores of images that nobody
        attacks are bounded by the certificate itself, `at_zero` (images,) in the order of `attacked`: it is what has
        to be disproved. Without it, which `in` and `out` need, they stand at their attacked scores.
        """
        evidence = self.evidence(attacked) if is_estimate(attacked) else None
        if evidence is None or not np.isin(attacked.images.index, evidence.index).all():
            return None
        order = np.argsort(evidence.index)
        rows = order[np.searchsorted(evidence.index, attacked.images.index, sorter=order)]
        ends, anomalous = evidence.interval(LEVEL / len(attacked.images)), attacked.images.labels == 1
        reached = ScoreBounds.exact(np.where(anomalous, ends.upper[rows], ends.lower[rows]))
        if at_zero is None:
            return reached, reached
        return reached, ScoreBounds.exact(np.where(anomalous, at_zero.upper, at_zero.lower))
