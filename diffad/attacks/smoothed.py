"""Attack on the certified object itself: the percentile of a score under fresh Gaussian noise.

Each step estimates the gradient by expectation over transformation (Athalye et al., ICML 2018): `eot`
fresh draws of the noise, differentiated through the denoiser as well as through the clean reference. The
empirical percentile has the gradient of a single draw, so the objective is a soft one: the Harrell-Davis
estimate (Biometrika 1982), a mean of the ordered draws with weights that peak at the percentile and narrow to
it as the draws grow. What is reported is the percentile itself.

Three disjoint sets of draws are used: `attack` for the gradients, `select` to choose between the points
found, and `evaluate`, one key for clean and attacked images alike, for the scores that are reported. None of
them meets the draws of a certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float
from scipy.special import betainc
from torch import Tensor

from certify.certificate import percentile_scores
from certify.checks import InputError
from certify.sampler import NOISE_CHUNK, NoisyScore, gaussian_noise, noise_chunk_count, sample_scores
from certify.smoothed_sum import SmoothedSum
from certify.smoothing import SmoothedDetector
from certify.types import FloatArray
from diffad.attacks.attack import attack
from diffad.attacks.objective import Rows
from diffad.attacks.result import AttackResult
from diffad.attacks.target import gradient_note


def harrell_davis_weights(draws: int, percentile: float) -> FloatArray:
    """Return the weights (draws,) of the ordered draws in the Harrell-Davis estimate of a percentile.

    Weight j is the mass of Beta((m + 1) p, (m + 1)(1 - p)) between (j - 1) / m and j / m.
    """
    edges = np.arange(draws + 1) / draws
    return np.diff(betainc((draws + 1) * percentile, (draws + 1) * (1.0 - percentile), edges))


def soft_percentile(scores: Float[Tensor, "b m"], percentile: float) -> Float[Tensor, " b"]:
    """Return the Harrell-Davis estimate (b,) of a percentile of m draws, differentiable in all of them."""
    weights = torch.from_numpy(harrell_davis_weights(scores.shape[1], percentile)).to(scores)
    return (scores.sort(dim=1).values * weights).sum(1)


@dataclass(frozen=True)
class SmoothedTarget:
    """The percentile of a smoothed detector; of a sum over noise levels the weighted sum of the percentiles.

    `n_select` draws choose between the points of an attack, `n_eval` (None: as many as `smoothed` certifies with)
    give the reported scores, clean and attacked alike under one key.
    """

    smoothed: SmoothedDetector | SmoothedSum
    n_select: int = 100
    n_eval: int | None = None
    noisy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse a detector without noise before any work."""
        for level, _ in _terms(self.smoothed):
            _noisy_score(level)
        for name, value in (("n_select", self.n_select), ("n_eval", self.draws)):
            if value < 1:
                raise InputError(f"{name}: got {value}, need at least 1")

    @property
    def draws(self) -> int:
        """Draws behind a reported score."""
        return _terms(self.smoothed)[0][0].n if self.n_eval is None else self.n_eval

    @property
    def device(self) -> str | torch.device:
        """Where the detector computes."""
        return _terms(self.smoothed)[0][0].device

    @property
    def batch_size(self) -> int:
        """Noisy images a forward pass."""
        return _terms(self.smoothed)[0][0].batch_size

    def scores(self, images: Tensor, names: Sequence[int], purpose: str) -> FloatArray:
        """Return the percentiles (n,) of `n_select` or `n_eval` draws, keyed by image."""
        draws = self.n_select if purpose == "select" else self.draws
        return _by_groups(self.smoothed, images, names, draws, purpose)

    def objective(self, *, eot: int, seed: int, first_chunk: int, steps: int) -> SmoothedObjective:
        """Return the soft percentile of `eot` fresh draws a step."""
        return SmoothedObjective(self.smoothed, eot, seed, first_chunk, steps)

    def describe(self) -> dict[str, Any]:
        """Return way, noise, percentile and draws, and of a sum the weights of its levels."""
        terms = _terms(self.smoothed)
        note = gradient_note(terms[0][0].detector)
        return {
            "percentile": _one_or_all([level.percentile for level, _ in terms]),
            "smoothing": terms[0][0].smoothing,
            "sigma": _one_or_all([level.sigma for level, _ in terms]),
            "grid": terms[0][0].grid,
            "n_select": self.n_select,
            "n_eval": self.draws,
            "evaluation_seed": _one_or_all([level.seed for level, _ in terms]),
            **({"weights": [weight for _, weight in terms]} if len(terms) > 1 else {}),
            **({} if note is None else {"gradient": note}),
        }


def attack_smoothed(
    smoothed: SmoothedDetector | SmoothedSum,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    indices: Sequence[int],
    *,
    n_select: int = 100,
    n_eval: int | None = None,
    **options: Any,
) -> AttackResult:
    """Attack the smoothed score: `attack` of a `SmoothedTarget`, by 40 cosine steps unless told otherwise.

    Another `method` has its own budget where no `steps` are given.

    Cost an image: restarts * steps * eot gradients, 2 * restarts * n_select and 2 * n_eval scores (n_eval with
    `previous`). `options` go to `attack`.
    """
    target = SmoothedTarget(smoothed, n_select, n_eval)
    if options.get("method", "pgd") == "pgd" and options.get("steps") is None:
        options["steps"] = 40
    return attack(target, images, labels, indices=indices, **options)


def estimate(
    smoothed: SmoothedDetector | SmoothedSum,
    images: Float[Tensor, "b c h w"],
    indices: Sequence[int],
    n: int,
    purpose: str,
) -> FloatArray:
    """Return the percentile (images,) of `n` draws, or the weighted sum of those of all levels.

    For n = smoothed.n it equals `smoothed.score`.
    """
    parts = [weight * _percentile(level, images, indices, n, purpose) for level, weight in _terms(smoothed)]
    return np.asarray(np.sum(parts, axis=0), dtype=np.float64)


def _percentile(
    smoothed: SmoothedDetector, images: Tensor, indices: Sequence[int], n: int, purpose: str
) -> FloatArray:
    if n == smoothed.n:
        return smoothed.score(images, indices, purpose)
    base, sigma = _noisy_score(smoothed)
    scores = sample_scores(
        base,
        images,
        indices,
        sigma=sigma,
        n=n,
        seed=smoothed.seed,
        purpose=purpose,
        batch_size=min(smoothed.batch_size, noise_chunk_count(n) * NOISE_CHUNK),
        device=smoothed.device,
        grid=smoothed.grid,
        label=f"{purpose} attack",
        probe=False,  # four batches a call: left to `smoothed.score` and the certificate
    )
    return percentile_scores(scores, smoothed.percentile)


@dataclass(frozen=True)
class SmoothedObjective:
    """The soft percentile of `eot` fresh draws, each level of a sum with the same ones.

    The draws come in pairs of opposite sign: each is Gaussian, and the part of a gradient that is odd in the noise,
    the bulk of its variance for a distance, cancels.
    """

    smoothed: SmoothedDetector | SmoothedSum
    eot: int
    seed: int
    first_chunk: int
    steps: int
    name: ClassVar[str] = "harrell_davis"
    exact: ClassVar[bool] = False

    @property
    def passes(self) -> int:
        """Forward passes a point."""
        return self.eot * len(_terms(self.smoothed))

    def __call__(self, points: Tensor, rows: Rows, step: int) -> Tensor:
        """Return the soft percentiles (b,), under draws keyed by image, restart and step."""
        shape = (-(-self.eot // 2), *points.shape[1:])
        chunks = [self.first_chunk + restart * self.steps + step for restart in rows.restarts]
        half = np.stack(
            [
                gaussian_noise(self.seed, name, "attack", chunk, shape)
                for name, chunk in zip(rows.names, chunks, strict=True)
            ]
        )
        noise = np.concatenate([half, -half], axis=1)[:, : self.eot]
        parts = [
            weight * self._soft_percentile(level, points, noise) for level, weight in _terms(self.smoothed)
        ]
        return torch.stack(parts).sum(0)

    def _soft_percentile(self, level: SmoothedDetector, points: Tensor, noise: FloatArray) -> Tensor:
        """Return the soft percentile (b,) under standard normal `noise` (b, eot, c, h, w) times sigma."""
        base, sigma = _noisy_score(level)
        noisy = points[:, None] + sigma * torch.from_numpy(noise).to(points)
        scores = base(
            repeat(points, "b c h w -> (b m) c h w", m=self.eot), rearrange(noisy, "b m c h w -> (b m) c h w")
        )
        if scores.shape != (len(points) * self.eot,):
            raise InputError(
                f"score: returned shape {tuple(scores.shape)} for {len(points) * self.eot} noisy images"
            )
        return soft_percentile(rearrange(scores, "(b m) -> b m", m=self.eot), level.percentile)


def _by_groups(
    smoothed: SmoothedDetector | SmoothedSum, images: Tensor, names: Sequence[int], n: int, purpose: str
) -> FloatArray:
    """Return `estimate` where a name may stand for several images, which then share their draws.

    Restarts of one image do, and a draw is keyed by the name; a sampler refuses a name twice.
    """
    scores, left = np.empty(len(names)), list(range(len(names)))
    while left:
        first = list({names[row]: row for row in reversed(left)}.values())
        scores[first] = estimate(smoothed, images[first], [names[row] for row in first], n, purpose)
        taken = set(first)
        left = [row for row in left if row not in taken]
    return scores


def _terms(smoothed: SmoothedDetector | SmoothedSum) -> list[tuple[SmoothedDetector, float]]:
    """Return the levels and their weights; a smoothed detector is one level of weight 1."""
    if isinstance(smoothed, SmoothedSum):
        return list(zip(smoothed.levels, smoothed.weights, strict=True))
    return [(smoothed, 1.0)]


def _one_or_all(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _noisy_score(smoothed: SmoothedDetector) -> tuple[NoisyScore, float]:
    if smoothed.base is None or smoothed.sigma is None:
        raise InputError("smoothing 'none' has no noise: attack the detector's score with pgd")
    return smoothed.base, smoothed.sigma
