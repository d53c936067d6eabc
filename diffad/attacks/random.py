"""Attack on a detector that draws noise of its own: what is reported is its mean score over fresh draws.

    attack(RandomTarget(detector, draws=20), images, labels, norm="linf", eps="8/255", eot=20)
    attack(detector, images, labels, norm="linf", eps="8/255")

The first differentiates the expectation over transformation (Athalye et al., ICML 2018): `eot` fresh draws a step.
The second is the fixed-randomness attack: the attacker knows the stored draws, and the score is deterministic
(`ScoreTarget`). To an attacker these are two detectors, and they are reported apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError
from certify.noise import gaussian_noise
from certify.types import FloatArray
from diffad.attacks.objective import Rows, check_eval_mode
from diffad.attacks.target import score_batches

# All images of a call share its noise, so that it is keyed by purpose and chunk, and by no image of its own.
_SHARED = 0


@runtime_checkable
class RandomDetector(Protocol):
    """A score that depends on standard normal noise; `diffad.Detector` with `is_random` is one."""

    @property
    def is_random(self) -> bool:
        """Whether the score depends on noise at all."""

    def score(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return scores (b,) under noise (draws, c, h, w), which all images share."""


@dataclass(frozen=True)
class RandomTarget:
    """The mean of a detector's score over fresh draws of its noise, one draw at a time.

    For a detector that averages over its draws this is its own score in expectation; of one that takes their median
    (`closed_form`) it is the mean of what single draws give.

    `draws` fresh draws give the reported scores, of clean and attacked images alike, and `select_draws` others choose
    between the points of an attack; both are keyed by `seed`. `batch_size` counts images times draws that share a
    graph: an attack takes batch_size / eot images at a time.
    """

    detector: RandomDetector
    draws: int = 20
    select_draws: int = 20
    seed: int = 0
    batch_size: int = 256
    device: str | torch.device = "cpu"
    noisy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a detector without noise, and layers in training mode, before any work."""
        if not isinstance(self.detector, RandomDetector) or not self.detector.is_random:
            raise InputError(
                f"detector: {type(self.detector).__name__} is not random; attack its score, without RandomTarget"
            )
        check_eval_mode(self.detector)
        for name in ("draws", "select_draws", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least 1")

    def scores(self, images: Tensor, names: Sequence[int], purpose: str) -> FloatArray:
        """Return the mean scores (n,) over the draws of `purpose`, `select` or `evaluate`: the same for all images."""
        count = self.select_draws if purpose == "select" else self.draws
        noise = gaussian_noise(self.seed, _SHARED, purpose, 0, (count, *images.shape[1:]))
        draws = torch.from_numpy(noise).to(images).to(self.device)
        score = partial(mean_score, self.detector, noise=draws)
        return score_batches(score, images, self.batch_size, self.device)

    def objective(self, *, eot: int, seed: int, first_chunk: int, steps: int) -> ExpectedScore:
        """Return the mean score over `eot` fresh draws a step."""
        return ExpectedScore(self.detector, eot, seed, first_chunk)

    def describe(self) -> dict[str, Any]:
        """Return the draws behind a score, and their key."""
        return {"draws": self.draws, "select_draws": self.select_draws, "evaluation_seed": self.seed}


@dataclass(frozen=True)
class ExpectedScore:
    """The mean score over `eot` fresh draws a step, shared by all rows: restarts differ by where they start.

    The draws come in pairs of opposite sign: each is Gaussian, and the part of a gradient that is odd in the noise
    cancels.
    """

    detector: RandomDetector
    eot: int
    seed: int
    first_chunk: int
    name: ClassVar[str] = "expected_score"
    exact: ClassVar[bool] = False

    @property
    def passes(self) -> int:
        """Scores a point."""
        return self.eot

    def __call__(self, points: Tensor, rows: Rows, step: int) -> Tensor:
        """Return the means (b,), under draws keyed by seed and step."""
        shape = (-(-self.eot // 2), *points.shape[1:])
        half = gaussian_noise(self.seed, _SHARED, "attack", self.first_chunk + step, shape)
        noise = np.concatenate([half, -half])[: self.eot]
        return mean_score(self.detector, points, torch.from_numpy(noise).to(points))


def mean_score(
    detector: RandomDetector, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "draws c h w"]
) -> Float[Tensor, " b"]:
    """Return the mean (b,) of the scores under each draw by itself, differentiable in the images."""
    return torch.stack([detector.score(images, one[None]) for one in noise]).mean(0)
