"""The objective: what an attack differentiates, and in which direction each image is pushed.

It need not be what is reported (that is the target, `diffad.attacks.target`): a surrogate may have the better
gradients. What an objective finds is always judged by the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError
from certify.types import FloatArray, ScoreFunction
from certify.ways import check_eval

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def check_attack_labels(labels: Any, count: int) -> IntArray:
    """Return labels as int64 (count,), 0 normal and 1 anomalous; one class alone is fine for an attack."""
    array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if array.shape != (count,):
        raise InputError(f"labels: got shape {array.shape} for {count} images; need one label an image")
    if not np.isin(array, (0, 1)).all():
        raise InputError(
            f"labels: got values {sorted(set(array.tolist()))[:5]}, allowed are 0 (normal) and 1 (anomalous)"
        )
    return array.astype(np.int64)


def directions(labels: IntArray) -> FloatArray:
    """Return +1 for normal images, whose score the attacker raises, and -1 for anomalies, which he hides."""
    return np.where(labels == 0, 1.0, -1.0)


def check_eval_mode(score: object) -> None:
    """Refuse a module (or a method of one) whose layers couple the images of a batch or draw at random."""
    check_eval(score if isinstance(score, nn.Module) else getattr(score, "__self__", None))


def evaluate(score: ScoreFunction, images: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Return the scores (b,) without a graph."""
    with torch.no_grad():
        return _checked(score(images), len(images)).detach()


@dataclass(frozen=True)
class Rows:
    """Which image (the key of its noise) and which restart each row of a batch is; both (b,)."""

    names: tuple[int, ...]
    restarts: tuple[int, ...]

    def __len__(self) -> int:
        """Rows of the batch."""
        return len(self.names)


@runtime_checkable
class Objective(Protocol):
    """A differentiable function of a batch of points, higher = more anomalous."""

    @property
    def name(self) -> str:
        """As results name it."""

    @property
    def exact(self) -> bool:
        """Whether its value is the reported score itself: a point visited then needs no second evaluation."""

    @property
    def passes(self) -> int:
        """Forward passes a point, for the count of what an attack has cost."""

    def __call__(self, points: Tensor, rows: Rows, step: int) -> Tensor:
        """Return the values (b,) at points (b, c, h, w); `step` keys fresh noise where there is any."""


@dataclass(frozen=True)
class ScoreObjective:
    """A deterministic function of the images alone: the score itself (`exact`), or a surrogate by name."""

    function: ScoreFunction
    name: str = "score"
    exact: bool = True
    passes: ClassVar[int] = 1

    def __call__(self, points: Tensor, rows: Rows, step: int) -> Tensor:
        """Return the function at the points; rows and step make no difference."""
        return self.function(points)


@dataclass
class GradientCount:
    """What an attack has asked for: gradients, those of them that were exactly zero (masking), and scores.

    Each counts one image once; a gradient by `eot` draws is one.
    """

    gradients: int = 0
    zeros: int = 0
    queries: int = 0

    @property
    def zero_share(self) -> float:
        """Share of exactly zero gradients, 0 when none was asked for."""
        return self.zeros / self.gradients if self.gradients else 0.0


def score_gradient(
    score: ScoreFunction,
    points: Float[Tensor, "b c h w"],
    direction: Float[Tensor, " b"],
    count: GradientCount,
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b c h w"]]:
    """Return the scores (b,) at `points` and the gradient of direction * score, one image at a time.

    The objective is the sum over the batch, not the mean: no image's gradient depends on the batch size.
    Raises InputError if the score has no gradient in its input, or one that is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        leaf = points.detach().clone().requires_grad_()
        scores = _with_graph(score, leaf)
        (gradient,) = torch.autograd.grad(
            scores, leaf, grad_outputs=direction.clone().to(scores), allow_unused=True
        )
    if gradient is None:
        raise InputError("score: its gradient does not reach its input; it is computed from something else")
    largest = gradient.flatten(1).abs().amax(1)  # NaN where any entry is
    if not bool(torch.isfinite(largest).all()):
        row = int((~torch.isfinite(largest)).nonzero()[0])
        raise InputError(
            f"score: its gradient is NaN or infinite for image {row} of the batch; "
            "a root of zero is the usual cause (use torch.linalg.vector_norm)"
        )
    count.gradients += len(largest)
    count.zeros += int((largest == 0).sum())
    return scores.detach(), gradient


def _with_graph(score: ScoreFunction, leaf: Tensor) -> Tensor:
    from diffad.attacks.methods import ATTACKS, ENSEMBLES, needs_of  # which build on this module

    usable = ", ".join(name for name in (*ENSEMBLES, *ATTACKS) if needs_of(name) == "scores")
    words = (
        "score: it has no gradient in its input (detached, no_grad, rounded or NumPy); make it differentiable, or use "
        f"a method that needs scores only: {usable}"
    )
    try:
        scores = _checked(score(leaf), len(leaf))
    except RuntimeError as error:  # what `images.numpy()` says of an image with a graph
        if "requires grad" in str(error):
            raise InputError(words) from None
        raise
    if not scores.requires_grad:
        raise InputError(words)
    return scores


def _checked(scores: Any, count: int) -> Tensor:
    if isinstance(scores, np.ndarray):  # scikit-learn and its like; a gradient is then refused by name
        scores = torch.from_numpy(np.ascontiguousarray(scores))
    if not isinstance(scores, Tensor):
        raise InputError(f"score: returned {type(scores).__name__}, need a tensor or an array ({count},)")
    if scores.shape != (count,):
        raise InputError(f"score: returned shape {tuple(scores.shape)} for {count} images, need ({count},)")
    if not bool(torch.isfinite(scores.detach()).all()):
        raise InputError("score: returned NaN or infinity; an attack on it means nothing")
    return scores
