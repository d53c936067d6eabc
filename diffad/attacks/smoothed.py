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
from functools import partial
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Float
from scipy.special import betainc
from torch import Tensor

from certify.certificate import percentile_scores
from certify.checks import InputError, check_images
from certify.console import progress
from certify.sampler import (
    NOISE_CHUNK,
    NoisyScore,
    check_indices,
    gaussian_noise,
    noise_chunk_count,
    sample_scores,
)
from certify.smoothed_sum import SmoothedSum
from certify.smoothing import SmoothedDetector
from certify.types import FloatArray
from diffad.attacks.objective import (
    GradientCount,
    IntArray,
    check_attack_labels,
    directions,
    score_gradient,
)
from diffad.attacks.pgd import batches, step_sizes
from diffad.attacks.result import AttackResult, keep_worse
from diffad.attacks.threat import Radius, ThreatModel


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


def attack_smoothed(
    smoothed: SmoothedDetector | SmoothedSum,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    indices: Sequence[int],
    *,
    norm: str,
    eps: Radius,
    steps: int = 40,
    eot: int = 16,
    restarts: int = 1,
    schedule: str = "cosine",
    seed: int = 0,
    n_select: int = 100,
    n_eval: int | None = None,
    batch_size: int | None = None,
    previous: AttackResult | None = None,
) -> AttackResult:
    """Raise the smoothed scores of normal images and lower those of anomalies within a ball.

    Of a sum over noise levels the weighted sum of the percentiles is attacked, each level with `eot` draws a step.

    `indices` key all noise, as in the certificate. Each step differentiates `eot` fresh draws an image, in
    forward passes of about `batch_size` noisy images (default: that of `smoothed`). Each restart offers its
    last iterate and the mean of the iterates of its second half (in the ball, since that is convex, and less
    noisy); the one with the worst percentile of `n_select` draws is evaluated with `n_eval` draws (default:
    as many as `smoothed` certifies with). The worse of clean and attacked score is kept, and of the attack
    at a smaller eps given as `previous`, where the first restart then begins; so for radii in ascending order
    (`attack_curve`) no score improves with the radius.

    Cost an image: restarts * steps * eot gradients, (2 * restarts + 1) * n_select and 2 * n_eval scores
    (n_eval with `previous`). Raises InputError for inputs out of range or a score without gradient.
    """
    terms = _terms(smoothed)
    for level, _ in terms:
        _noisy_score(level)  # refuse a detector without noise before any work
    first = terms[0][0]
    threat = ThreatModel.parse(norm, eps)
    check_images(images)
    label_array, names = check_attack_labels(labels, len(images)), check_indices(indices, len(images))
    sizes = step_sizes(threat.eps, steps, schedule)
    for name, value in (("eot", eot), ("restarts", restarts), ("n_select", n_select)):
        if value < 1:
            raise InputError(f"{name}: got {value}, need at least 1")
    if previous is not None:
        previous.check_continues(threat, images, label_array)

    clean = images.detach().cpu()
    draws = first.n if n_eval is None else n_eval
    if previous is None:
        clean_scores = estimate(smoothed, clean, names, draws, "evaluate")
        best, used = (clean, clean_scores), 0
    else:
        clean_scores = previous.clean_scores
        best, used = (previous.images, previous.scores), int(previous.info["noise_chunks"])
    search = _Search(smoothed, threat, sizes, eot, restarts, seed, used, GradientCount())
    points = search.run(clean, best[0], names, label_array, batch_size or first.batch_size, n_select)
    moved = (points != best[0]).flatten(1).any(1).numpy()
    if moved.any():
        scores = best[1].copy()
        scores[moved] = estimate(
            smoothed, points[moved], [names[row] for row in np.flatnonzero(moved)], draws, "evaluate"
        )
        best = keep_worse(label_array, best, (points, scores))
    threat.check(best[0], clean)
    info = {
        "attack": "smoothed_pgd",
        "objective": "harrell_davis",
        "percentile": _one_or_all([level.percentile for level, _ in terms]),
        "smoothing": first.smoothing,
        "sigma": _one_or_all([level.sigma for level, _ in terms]),
        "steps": steps,
        "restarts": restarts,
        "schedule": schedule,
        "eot": eot,
        "seed": seed,
        "n_select": n_select,
        "n_eval": draws,
        "evaluation_seed": _one_or_all([level.seed for level, _ in terms]),
        "gradient_evaluations": search.count.gradients * eot * len(terms),
        "zero_gradient_share": search.count.zero_share,
        "noise_chunks": used + restarts * len(sizes),  # a next radius goes on with fresh draws
    }
    return AttackResult(best[0], best[1], clean_scores, label_array, threat.norm, threat.eps, info)


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
class _Search:
    """Gradient ascent on the soft percentile, and the choice between the points it finds."""

    smoothed: SmoothedDetector | SmoothedSum
    threat: ThreatModel
    sizes: list[float]
    eot: int
    restarts: int
    seed: int
    first_chunk: int
    count: GradientCount

    def run(
        self,
        clean: Tensor,
        starts: Tensor,
        names: list[int],
        labels: IntArray,
        batch_size: int,
        n_select: int,
    ) -> Tensor:
        """Return for each image the worst of `starts` and all points found, by `n_select` common draws."""
        if not self.sizes:
            return starts
        groups = list(batches(len(clean), max(1, batch_size // self.eot)))
        found = [
            self._climb(clean[rows], starts[rows], names[rows], labels[rows])
            for rows in progress(groups, f"attack {self.threat.norm} {self.threat.eps:g}")
        ]
        best = (starts, estimate(self.smoothed, starts, names, n_select, "select"))
        for parts in zip(*found, strict=True):
            points = torch.cat(parts)
            scores = estimate(self.smoothed, points, names, n_select, "select")
            best = keep_worse(labels, best, (points, scores))
        return best[0]

    def _climb(self, clean: Tensor, start: Tensor, names: list[int], labels: IntArray) -> list[Tensor]:
        """Return the candidates of each restart: its last iterate and the mean of its second half."""
        device = _terms(self.smoothed)[0][0].device
        clean, start = clean.to(device), start.to(device)
        direction = torch.from_numpy(directions(labels)).to(clean)
        candidates = []
        for restart in range(self.restarts):
            if restart:
                start = self.threat.random_start(clean, names, seed=self.seed, restart=restart)
            points, half, total = start, len(self.sizes) // 2, torch.zeros_like(start)
            for step, size in enumerate(self.sizes):
                chunk = self.first_chunk + restart * len(self.sizes) + step
                score = partial(self._soft_score, names=names, chunk=chunk)
                _, gradient = score_gradient(score, points, direction, self.count)
                points = self.threat.project(points + size * self.threat.ascent(gradient), clean)
                total += points if step >= half else 0
            mean = self.threat.project(total / (len(self.sizes) - half), clean)
            candidates += [points.cpu(), mean.cpu()]
        return candidates

    def _soft_score(self, points: Tensor, *, names: list[int], chunk: int) -> Tensor:
        """Return the soft percentile (b,) of fresh draws, keyed by image and chunk; the levels of a sum share them.

        The draws come in pairs of opposite sign: each is Gaussian, and the part of a gradient that is odd in
        the noise, the bulk of its variance for a distance, cancels.
        """
        shape = (-(-self.eot // 2), *points.shape[1:])
        half = np.stack([gaussian_noise(self.seed, name, "attack", chunk, shape) for name in names])
        noise = np.concatenate([half, -half], axis=1)[:, : self.eot]
        terms = _terms(self.smoothed)
        parts = [weight * self._soft_percentile(level, points, noise) for level, weight in terms]
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
