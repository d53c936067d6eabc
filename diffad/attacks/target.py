"""The target of an attack: the score that is reported, and how it is estimated.

| detector                             | target           | the reported score                                 |
|--------------------------------------|------------------|----------------------------------------------------|
| `score(images)`, any callable        | `ScoreTarget`    | its value in a fresh pass, in another order        |
| `certify.SmoothedDetector`, or a sum | `SmoothedTarget` | the percentile of fresh draws (`attacks.smoothed`) |
| a detector with noise of its own     | `RandomTarget`   | the mean over fresh draws (`attacks.random`)       |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from certify.checks import InputError
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.objective import Objective, ScoreObjective, check_eval_mode, evaluate


@runtime_checkable
class Target(Protocol):
    """What is attacked and reported."""

    @property
    def noisy(self) -> bool:
        """Whether a score is an estimate from random draws.

        Points are then compared by common draws, and the best of an attack is chosen by draws of its own.
        """

    @property
    def device(self) -> str | torch.device:
        """Where the detector computes."""

    @property
    def batch_size(self) -> int:
        """Images a forward pass."""

    def scores(self, images: Tensor, names: Sequence[int], purpose: str) -> FloatArray:
        """Return float64 scores (n,) of CPU images; `purpose` is `select` or `evaluate`, for disjoint draws."""

    def objective(self, *, eot: int, seed: int, first_chunk: int, steps: int) -> Objective:
        """Return what to differentiate: the score itself, or a smooth estimate of it from `eot` draws a step.

        The draws of a step are keyed by image and chunk first_chunk + restart * steps + step.
        """

    def describe(self) -> dict[str, Any]:
        """Return what a result says of the target (JSON values)."""


@dataclass(frozen=True)
class ScoreTarget:
    """A deterministic score of the images alone."""

    score: ScoreFunction
    batch_size: int = 64
    device: str | torch.device = "cpu"
    noisy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse layers in training mode."""
        check_eval_mode(self.score)

    def scores(self, images: Tensor, names: Sequence[int], purpose: str) -> FloatArray:
        """Return the scores (n,); for `evaluate` in reverse order, so that no batch is one of the search."""
        if purpose == "evaluate":
            return score_batches(self.score, images.flip(0), self.batch_size, self.device)[::-1].copy()
        return score_batches(self.score, images, self.batch_size, self.device)

    def objective(self, *, eot: int, seed: int, first_chunk: int, steps: int) -> Objective:
        """Return the score itself."""
        return ScoreObjective(self.score)

    def describe(self) -> dict[str, Any]:
        """Return what the score's owner says of its gradient, where that is approximate."""
        note = gradient_note(getattr(self.score, "__self__", self.score))
        return {} if note is None else {"gradient": note}


def gradient_note(owner: Any) -> str | None:
    """Return what of a detector's gradient is approximate (`Detector.approximate_gradient`); None where it is exact."""
    note = getattr(owner, "approximate_gradient", None)
    return None if note is None else f"approximate: {note}"


def score_batches(
    score: ScoreFunction, images: Tensor, batch_size: int, device: str | torch.device
) -> FloatArray:
    """Return the scores of all images as float64 (n,), in batches and without a graph."""
    parts = [evaluate(score, images[rows].to(device)) for rows in batches(len(images), batch_size)]
    return torch.cat(parts).double().cpu().numpy()


def batches(count: int, batch_size: int) -> Iterator[slice]:
    """Yield the slices of consecutive batches of at most `batch_size`."""
    if batch_size < 1:
        raise InputError(f"batch_size: got {batch_size}, need at least 1")
    for start in range(0, count, batch_size):
        yield slice(start, start + batch_size)
