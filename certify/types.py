"""The one type that crosses from detectors, attacks and certificates to metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from torch import Tensor

from certify.checks import InputError

Side: TypeAlias = Literal["clean", "in", "out", "both"]
SIDES: tuple[Side, ...] = ("clean", "in", "out", "both")
FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
ScoreFunction: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ScoreBounds:
    """For each image the interval in which its anomaly score lies under a threat.

    `lower` and `upper` are float64 of equal shape, (images,) or (radii, images), higher = more anomalous;
    infinite ends mean that nothing is known. Clean scores are the case `lower == upper`.
    """

    lower: FloatArray
    upper: FloatArray

    def __post_init__(self) -> None:
        lower, upper = np.asarray(self.lower, dtype=np.float64), np.asarray(self.upper, dtype=np.float64)
        if lower.shape != upper.shape or lower.ndim not in (1, 2) or lower.size == 0:
            raise InputError(
                f"ScoreBounds: got shapes {lower.shape} and {upper.shape}, "
                "need two equal ones, (images,) or (radii, images)"
            )
        if np.isnan(lower).any() or np.isnan(upper).any():
            raise InputError("ScoreBounds: got NaN; an unknown end is -inf (lower) or inf (upper)")
        if (lower > upper).any():
            where = tuple(int(i) for i in np.argwhere(lower > upper)[0])
            raise InputError(f"ScoreBounds: lower {lower[where]} is above upper {upper[where]} at {where}")
        object.__setattr__(self, "lower", lower)
        object.__setattr__(self, "upper", upper)

    def __len__(self) -> int:
        """Number of images."""
        return int(self.lower.shape[-1])

    def at(self, radius_index: int) -> ScoreBounds:
        """Return the bounds (images,) at one of the leading radii."""
        if self.lower.ndim != 2:
            raise InputError("ScoreBounds.at: these bounds have no leading axis of radii")
        return ScoreBounds(self.lower[radius_index], self.upper[radius_index])

    @classmethod
    def exact(cls, scores: Any) -> ScoreBounds:
        """Bounds of known scores (images,): lower = upper = score."""
        array = np.asarray(scores.detach().cpu() if isinstance(scores, Tensor) else scores, dtype=np.float64)
        return cls(array, array)
