"""Choosing noise, score and inner noise of the diffusion detector on validation data, for each way of smoothing.

Validation holds held-out normals and synthetic defects, so the choice never sees a test anomaly; its draws have a
purpose of their own (`select`), so the certificate later rests on fresh ones.

A candidate is judged by the certified AUROC (both sides) it would reach with the planned n and alpha, averaged over
radii, from fewer draws (`diffad.planned`). Percentiles are post-processing: one set of draws serves them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_choice
from certify.sampler import NOISE_CHUNK, NoisyScore, sample_scores
from certify.types import FloatArray
from diffad.data import ImageSet
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.scores import ScoreName, pair_lipschitz
from diffad.planned import planned_auroc
from diffad.ranking import ranked

SELECTABLE = ("reference", "denoise", "input")


@dataclass(frozen=True)
class Grid:
    """What is tried, and the plan that it is judged by.

    Args:
        sigmas: noise that is added and certified.
        inner_sigmas: the detector's own noise, for `input` and `denoise`.
        scores: (score name, window size); the window matters to the patch scores only.
        radii: L2 radii over which the certified AUROC is averaged.
        planned_n, alpha: of the certificate to come, alpha for all images together.
        percentiles: of the noisy score.
        curve: more radii at which the certified AUROC is kept, for a figure; no part of the choice.
        draws: noise draws an image spent here.
        images: validation images of each label, at most.
        seed: of the draws.
    """

    sigmas: tuple[float, ...] = (0.25, 0.5, 1.0)
    inner_sigmas: tuple[float, ...] = (0.1, 0.25, 0.5)
    scores: tuple[tuple[ScoreName, int], ...] = (("l2", 9), ("patch_max", 9), ("root_max", 9))
    radii: tuple[float, ...] = (0.1, 0.25)
    planned_n: int = 1000
    alpha: float = 0.001
    percentiles: tuple[float, ...] = (0.5,)
    curve: tuple[float, ...] = ()
    draws: int = 300
    images: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """One row of the selection table; `inner_sigma` is None for `reference`."""

    smoothing: str
    sigma: float
    inner_sigma: float | None
    score_name: ScoreName
    patch_size: int
    clean: float
    certified: tuple[float, ...]
    percentile: float = 0.5
    curve: tuple[float, ...] = ()

    @property
    def merit(self) -> tuple[float, float]:
        """Mean certified AUROC over the radii, then clean AUROC."""
        return float(np.mean(self.certified)), self.clean

    def row(self) -> dict[str, Any]:
        """As JSON."""
        lists = {"certified": list(self.certified), "curve": list(self.curve)}
        return {**asdict(self), **lists, "merit": self.merit[0]}


def selection_table(
    detector: DiffusionDetector,
    validation: ImageSet,
    smoothing: str,
    grid: Grid | None = None,
    *,
    batch_size: int = 250,
    device: str = "cpu",
) -> list[Candidate]:
    """Return all candidates of one way of smoothing, best first."""
    check_choice(smoothing, SELECTABLE, "smoothing")
    grid = grid or Grid()
    chosen = first_of_each_label(validation, grid.images)
    inner = grid.inner_sigmas if smoothing != "reference" else (None,)
    candidates: list[Candidate] = []
    for sigma in grid.sigmas:
        for inner_sigma in inner:
            draws = sample_scores(
                _all_scores(detector, smoothing, sigma, inner_sigma, grid.scores),
                chosen.images,
                range(len(chosen)),
                sigma=sigma,
                n=grid.draws,
                seed=grid.seed,
                purpose="select",
                batch_size=_batch(batch_size, grid.draws),
                device=device,
                label=f"choosing, {smoothing}, sigma {sigma:g}",
            )
            for column, (name, patch_size) in enumerate(grid.scores):
                constant = _constant(detector, smoothing, name)
                if constant is None:
                    continue
                own = (smoothing, sigma, inner_sigma, name, patch_size)
                for percentile in grid.percentiles:
                    judged = _judge(
                        draws[..., column], chosen.labels.numpy(), sigma, constant, grid, percentile
                    )
                    candidates.append(Candidate(*own, *judged[:2], percentile, judged[2]))
    return ranked(candidates)


def configured(detector: DiffusionDetector, candidate: Candidate) -> DiffusionDetector:
    """Return the detector with the options of a candidate; for `input` and `denoise` one stored draw is used.

    One draw, because every noisy copy already is a draw: the ways are compared at equal network calls a copy.
    """
    if candidate.smoothing == "reference":
        return detector.with_options(
            score_name=candidate.score_name, patch_size=candidate.patch_size, sigma=candidate.sigma
        )
    assert candidate.inner_sigma is not None
    return detector.with_options(
        score_name=candidate.score_name,
        patch_size=candidate.patch_size,
        sigma=candidate.inner_sigma,
        draws=1,
    )


def _all_scores(
    detector: DiffusionDetector,
    smoothing: str,
    sigma: float,
    inner_sigma: float | None,
    scores: Sequence[tuple[ScoreName, int]],
) -> NoisyScore:
    """Base score with one column for each candidate score: they share the network calls."""
    views = [
        detector.with_options(score_name=name, patch_size=size, sigma=inner_sigma or sigma)
        for name, size in scores
    ]

    def columns(reference: Tensor, reconstruction: Tensor) -> Tensor:
        return torch.stack([view.score_pair(reference, reconstruction) for view in views], dim=1)

    def base(clean: Float[Tensor, "1 c h w"], noisy: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        if inner_sigma is None:
            return columns(clean.expand_as(noisy), detector.reconstruct(noisy, sigma))
        seen = detector.reconstruct(noisy, sigma) if smoothing == "denoise" else noisy
        return columns(seen, detector.reconstruct(seen + inner_sigma * detector.noise_[:1], inner_sigma))

    return base


def _constant(detector: DiffusionDetector, smoothing: str, name: ScoreName) -> float | None:
    if smoothing != "reference":
        return 0.0
    if detector.image_shape is None:
        raise InputError("selection: the detector is not fitted")
    return pair_lipschitz(name, detector.image_shape, detector.scales, detector.filter_size)


def _judge(
    draws: FloatArray,
    labels: np.ndarray[Any, np.dtype[np.int64]],
    sigma: float,
    constant: float,
    grid: Grid,
    percentile: float,
) -> tuple[float, tuple[float, ...], tuple[float, ...]]:
    """Return the clean AUROC, the certified ones at grid.radii, and those at grid.curve."""
    clean, certified = planned_auroc(
        draws,
        labels,
        sigma=sigma,
        lipschitz=constant,
        percentile=percentile,
        radii=(*grid.radii, *grid.curve),
        planned_n=grid.planned_n,
        alpha=grid.alpha,
    )
    return clean, certified[: len(grid.radii)], certified[len(grid.radii) :]


def first_of_each_label(images: ImageSet, count: int) -> ImageSet:
    """Return the first `count` normals and the first `count` anomalies."""
    labels = images.labels.numpy()
    kept = np.concatenate([np.flatnonzero(labels == label)[:count] for label in (0, 1)])
    return images.take([int(i) for i in kept])


def _batch(batch_size: int, draws: int) -> int:
    return min(batch_size, -(-draws // NOISE_CHUNK) * NOISE_CHUNK)


def grid_for(radii: Sequence[float], base: Grid | None = None) -> Grid:
    """Return a grid judged at other radii."""
    return replace(base or Grid(), radii=tuple(radii))
