"""Choosing way, noise, score and percentile for any detector on validation data, each way on one budget.

Validation holds held-out normals and synthetic defects: test images play no part. Its draws have a purpose of their own
(`select`), so a certificate on test images spends its whole alpha on fresh ones, however many choices were compared.
The AUROC of the winner is that of the best of many on a small sample: optimistic, and no certificate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from certify.certificate import lipschitz_bounds
from certify.checks import InputError, check_choice
from certify.metrics import auroc
from certify.noise import NOISE_CHUNK
from certify.sampler import sample_scores
from certify.types import ScoreBounds
from certify.ways import WAYS, make_base
from diffad.data import ImageSet
from diffad.detector import Detector
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.scores import PATCH_SCORES
from diffad.diffusion.select import SELECTABLE, Candidate, Grid, first_of_each_label, selection_table
from diffad.planned import planned_auroc
from diffad.ranking import ranked


@dataclass(frozen=True)
class Choice:
    """One row of the sweep.

    `score` is empty for a detector with one score; None stands for options that the way or the score does not
    have. `clean` is the AUROC of the smoothed score; `certified` the AUROC (both sides) that the plan would certify
    at the radii of the choice, `curve` at those of the figure.
    """

    smoothing: str
    sigma: float | None
    inner_sigma: float | None
    score: str
    patch_size: int | None
    percentile: float
    clean: float
    certified: tuple[float, ...]
    curve: tuple[float, ...]

    @property
    def merit(self) -> tuple[float, float]:
        """Mean certified AUROC over the radii of the choice, then clean AUROC."""
        return float(np.mean(self.certified)), self.clean

    @property
    def label(self) -> str:
        """Short name for legends, for example `reference, σ = 1, l2, p = 0.5`."""
        words = [self.smoothing if self.sigma is not None else "without noise"]
        words += [] if self.sigma is None else [f"σ = {self.sigma:g}"]
        words += [] if self.inner_sigma is None else [f"inner σ = {self.inner_sigma:g}"]
        words += [f"{self.score} {self.patch_size or ''}".strip()] if self.score else []
        return ", ".join([*words, *([] if self.sigma is None else [f"p = {self.percentile:g}"])])

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "merit": self.merit[0]}


def available_ways(detector: Detector) -> tuple[str, ...]:
    """Return the ways that a detector can be certified by, the cheapest first."""
    ways = ["none"] if detector.lipschitz is not None else []
    denoises = type(detector).reconstruct is not Detector.reconstruct
    ways += ["reference"] if denoises and detector.pair_lipschitz is not None else []
    return tuple([*ways, *(["sure", "denoise"] if denoises else []), "input"])


def sweep_choices(
    detector: Detector,
    validation: ImageSet,
    ways: Sequence[str],
    grid: Grid,
    *,
    batch_size: int = 250,
    device: str = "cpu",
) -> list[Choice]:
    """Return every choice of every way, best first.

    Raises:
        InputError: for a way that the detector does not have.
    """
    found: list[Choice] = []
    for way in ways:
        check_choice(way, WAYS, "ways")
        if way == "none":
            found.append(_without_noise(detector, validation, grid, device))
        elif isinstance(detector, DiffusionDetector) and way in SELECTABLE:
            table = selection_table(detector, validation, way, grid, batch_size=batch_size, device=device)
            found += [_of_candidate(candidate) for candidate in table]
        else:
            found += _own_score(detector, validation, way, grid, batch_size, device)
    return ranked(found)


def best_of_each_way(choices: Sequence[Choice]) -> list[Choice]:
    """Return the best choice of every way, best first."""
    best: dict[str, Choice] = {}
    for choice in ranked(choices):
        best.setdefault(choice.smoothing, choice)
    return list(best.values())


def forward_passes(detector: Detector, ways: Sequence[str], grid: Grid, images: int) -> int:
    """Return the images that a sweep scores: the same draws of the same images for each noise of each way."""
    passes = 0
    for way in ways:
        if way == "none":
            passes += images
            continue
        inner = len(grid.inner_sigmas) if _has_inner(detector, way) else 1
        draws = -(-grid.draws // NOISE_CHUNK) * NOISE_CHUNK
        passes += images * draws * len(grid.sigmas) * inner
    return passes


def _has_inner(detector: Detector, way: str) -> bool:
    return isinstance(detector, DiffusionDetector) and way in ("input", "denoise")


def _of_candidate(candidate: Candidate) -> Choice:
    windowed = candidate.score_name in PATCH_SCORES
    return Choice(
        candidate.smoothing,
        candidate.sigma,
        candidate.inner_sigma,
        candidate.score_name,
        candidate.patch_size if windowed else None,
        candidate.percentile,
        candidate.clean,
        candidate.certified,
        candidate.curve,
    )


def _own_score(
    detector: Detector, validation: ImageSet, way: str, grid: Grid, batch_size: int, device: str
) -> list[Choice]:
    """Judge a detector's own score under one way, at every noise and percentile."""
    chosen = first_of_each_label(validation, grid.images)
    found = []
    for sigma in grid.sigmas:
        base, lipschitz = make_base(detector.to(device), way, sigma=sigma)  # type: ignore[arg-type]  # checked
        draws = sample_scores(
            base,
            chosen.images,
            range(len(chosen)),
            sigma=sigma,
            n=grid.draws,
            seed=grid.seed,
            purpose="select",
            batch_size=min(batch_size, -(-grid.draws // NOISE_CHUNK) * NOISE_CHUNK),
            device=device,
            label=f"choosing, {way}, sigma {sigma:g}",
            name=detector.name,
        )
        for percentile in grid.percentiles:
            clean, certified = planned_auroc(
                draws,
                chosen.labels.numpy(),
                sigma=sigma,
                lipschitz=lipschitz,
                percentile=percentile,
                radii=(*grid.radii, *grid.curve),
                planned_n=grid.planned_n,
                alpha=grid.alpha,
            )
            at = len(grid.radii)
            found.append(
                Choice(way, sigma, None, "", None, percentile, clean, certified[:at], certified[at:])
            )
    return found


def _without_noise(detector: Detector, validation: ImageSet, grid: Grid, device: str) -> Choice:
    """Judge a Lipschitz score: exact on these images."""
    if detector.lipschitz is None:
        raise InputError(f"ways: 'none' needs a proven Lipschitz constant, which {detector.name} lacks")
    chosen = first_of_each_label(validation, grid.images)
    lower, upper = detector.to(device).score_interval(chosen.images.to(device))
    bounds = lipschitz_bounds(lower, upper, detector.lipschitz, [*grid.radii, *grid.curve])
    labels = chosen.labels.numpy()
    values = tuple(float(auroc(bounds.at(i), labels)) for i in range(len(bounds.lower)))
    clean = float(auroc(ScoreBounds.exact((lower + upper) / 2), labels))
    at = len(grid.radii)
    return Choice("none", None, None, "", None, 0.5, clean, values[:at], values[at:])
