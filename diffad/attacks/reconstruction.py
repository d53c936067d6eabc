"""Scores that look at an image through a reconstruction of it, as objects that an attack can take apart.

    score(x) = mean over draws e of S(x, R(x + sigma e))

S compares image and reconstruction (`Detector.score_pair`), or scores the reconstruction alone: purify, then detect.
Other S and other R are surrogate objectives, by name: an attack on `RandomTarget(score)`, or on the score with its
stored draws, may differentiate them with `objective=name`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_positive
from certify.noise import gaussian_noise
from certify.types import ScoreFunction
from diffad.attacks.gradients import Reconstruct, processes_of
from diffad.attacks.objective import check_eval_mode

PairScore: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_STORED_SEED = 0
# Pixel values of one call of a reconstruction where several draws share it: 256 grey images of 16 x 16, 21 of
# 32 x 32 in colour, single draws of large ones, whose memory is what counts. A small network wastes a third of its
# time on few images (16 x 16, one core: .62 ms each at 25, .49 at 50, .39 at 200 and 400).
_VALUES_A_CALL = 2**16


def mean_over_draws(
    pair: PairScore,
    reconstruct: Reconstruct,
    images: Float[Tensor, "b c h w"],
    sigma: float,
    draws: Float[Tensor, "draws c h w"],
) -> Float[Tensor, " b"]:
    """Return the mean over draws e of `pair(x, reconstruct(x + sigma e, sigma))`; several draws share a call.

    Raises:
        InputError: no draws.
    """
    if len(draws) == 0:
        raise InputError("mean over draws of the noise: got none; fit the detector, or give at least one")
    count = images.shape[0]  # len would fix the batch of an exported graph
    exported = torch.compiler.is_exporting()
    together = 1 if exported else max(1, _VALUES_A_CALL // max(1, images.numel()))
    total = torch.zeros(count, dtype=images.dtype, device=images.device)
    for some in draws.chunk(math.ceil(len(draws) / together)):  # of one size where that is possible
        noisy = (images + sigma * some[:, None]).flatten(0, 1)
        references = images.expand(len(some), *images.shape).flatten(0, 1)
        total = total + pair(references, reconstruct(noisy, sigma)).view(len(some), count).sum(0)
    return total / len(draws)


@dataclass(frozen=True)
class ReconstructionScore:
    """The mean over draws e of `pair(x, reconstruct(x + sigma e, sigma))`, higher = more anomalous.

    `noise` (draws, c, h, w) are the stored draws, used where a call brings none. `pairs` and `processes` are the
    surrogates of the two parts, by name.
    """

    pair: PairScore
    reconstruct: Reconstruct
    sigma: float
    noise: Tensor
    pairs: Mapping[str, PairScore] = field(default_factory=dict)
    processes: Mapping[str, Reconstruct] = field(default_factory=dict)
    is_random: ClassVar[bool] = True

    def score(
        self, images: Float[Tensor, "b c h w"], noise: Float[Tensor, "draws c h w"] | None = None
    ) -> Float[Tensor, " b"]:
        """Return the mean (b,) over the draws, by default the stored ones; differentiable."""
        draws = (self.noise if noise is None else noise).to(images)
        return mean_over_draws(self.score_pair, self.reconstruct, images, self.sigma, draws)

    def __call__(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return `score`."""
        return self.score(images, noise)

    def score_pair(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        """Return S (b,), as `Detector.score_pair` does."""
        return self.pair(reference, reconstruction)

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return this score with one of its parts replaced, by the name of the part."""
        pairs = {name: replace(self, pair=pair) for name, pair in self.pairs.items()}
        processes = {name: replace(self, reconstruct=process) for name, process in self.processes.items()}
        return {**pairs, **processes}


def purified(
    detector: Any,
    purifier: Any,
    sigma: float,
    image_shape: tuple[int, int, int],
    *,
    draws: int = 8,
    clip: bool = True,
) -> ReconstructionScore:
    """Return purify-then-detect: the detector's score of the image after noise, denoising and a clip to [0, 1].

    DiffPure (Nie et al., ICML 2022) in front of any detector. The way `denoise` of a certificate is its percentile
    under fresh noise, without the clip.

    Args:
        detector: a `Detector`, or any `score(images) -> (b,)`; its surrogates, if it has any, are offered too.
        purifier: an object with `reconstruct(noisy, sigma)`.
        sigma: the noise that is added, in [0, 1] pixel units.
        image_shape: (channel, height, width).
        draws: stored draws, which a fixed-randomness attack knows.
        clip: bring what a detector sees into [0, 1]; a `Detector` refuses images outside.
    """
    check_positive(sigma, "sigma")
    if draws < 1:
        raise InputError(f"draws: got {draws}, need at least 1")
    for part in (detector, purifier):
        check_eval_mode(part)
    score = detector.score if callable(getattr(detector, "score", None)) else detector
    if not callable(score) or not callable(getattr(purifier, "reconstruct", None)):
        raise InputError("purified: needs a detector with score(images) and a purifier with reconstruct(...)")
    noise = torch.from_numpy(gaussian_noise(_STORED_SEED, 0, "fit", 0, (draws, *image_shape))).float()
    own = detector.surrogates() if hasattr(detector, "surrogates") else {}
    return ReconstructionScore(
        partial(_score_alone, score, clip),
        purifier.reconstruct,
        sigma,
        noise,
        {name: partial(_score_alone, function, clip) for name, function in own.items()},
        processes_of(purifier, residual=False),
    )


def _score_alone(score: ScoreFunction, clip: bool, reference: Tensor, reconstruction: Tensor) -> Tensor:
    return score(reconstruction.clamp(0.0, 1.0) if clip else reconstruction)
