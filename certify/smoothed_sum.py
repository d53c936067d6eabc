"""SmoothedSum: a detector scored at several noise levels, with certificates for the weighted sum of its percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_binary, check_positive
from certify.smoothing import SmoothedDetector, threshold_rank
from certify.store import ScoreStore
from certify.sums import NoiseLevel, certify_sum, sum_radius, sum_scores
from certify.types import FloatArray, ScoreBounds


class SmoothedSum:
    """The weighted sum of the percentiles of several smoothed detectors, one a noise level (see `certify.sums`).

    It offers what `SmoothedDetector` offers; draws and stores come in lists, one entry a level. The weights bring the
    levels' scores to one scale, which is a choice for validation data.

    Args:
        levels: smoothed detectors with noise (any way but `none`) and a seed each of its own (`level_seed`).
        weights: of the levels, finite and above 0; None: 1 each.
        alpha: one-sided error level an image of `bounds` and `radius`, two-sided of `predict`, for the sum as a
            whole; the levels' own is not used.

    Attributes:
        threshold_: set by `calibrate`; `score > threshold_` flags.
    """

    def __init__(
        self,
        levels: Sequence[SmoothedDetector],
        weights: Sequence[float] | None = None,
        *,
        alpha: float = 0.001,
    ) -> None:
        self.levels, self.alpha = tuple(levels), alpha
        self.weights = (1.0,) * len(levels) if weights is None else tuple(weights)
        self.threshold_: float | None = None
        if len(levels) == 0 or len(self.weights) != len(levels):
            raise InputError(
                f"levels: got {len(levels)} and {len(self.weights)} weights, need one of each a level"
            )
        for weight in self.weights:
            check_positive(weight, "weights")
        if any(level.smoothing == "none" for level in levels):
            raise InputError("levels: smoothing 'none' has no noise level; sum smoothed detectors")
        if len({level.seed for level in levels}) < len(levels):
            raise InputError(
                "levels: two have one seed and would share their noise; give each level_seed(seed, level)"
            )

    @classmethod
    def of(
        cls,
        detector: Any,
        sigmas: Sequence[float],
        *args: Any,
        weights: Sequence[float] | None = None,
        alpha: float = 0.001,
        seed: int = 0,
        **options: Any,
    ) -> SmoothedSum:
        """Smooth one detector at each of `sigmas`; the other arguments as for `SmoothedDetector`.

        The default `seed` is as public here as there: in deployment give `fresh_seed()`.
        """
        levels = [
            SmoothedDetector(detector, sigma, *args, seed=level_seed(seed, level), **options)
            for level, sigma in enumerate(sigmas)
        ]
        return cls(levels, weights, alpha=alpha)

    @property
    def terms(self) -> tuple[NoiseLevel, ...]:
        """What the pure functions of `certify.sums` need to know of each level."""
        return tuple(
            NoiseLevel(float(level.sigma or 0.0), weight, level.lipschitz, level.percentile)
            for level, weight in zip(self.levels, self.weights, strict=True)
        )

    def noisy_scores(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        purpose: str = "certify",
        stores: Sequence[ScoreStore | None] | None = None,
    ) -> list[FloatArray]:
        """Draw the scores (images, n) of each level. See `sample_scores`."""
        kept = [None] * len(self.levels) if stores is None else stores
        return [
            level.noisy_scores(images, indices, purpose, store)
            for level, store in zip(self.levels, kept, strict=True)
        ]

    def score(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        purpose: str = "evaluate",
        stores: Sequence[ScoreStore | None] | None = None,
    ) -> FloatArray:
        """Estimate the score (images,) from n draws a level."""
        return sum_scores(self.noisy_scores(images, indices, purpose, stores), self.terms)

    def calibrate(
        self,
        images: Float[Tensor, "b c h w"],
        quantile: float = 0.95,
        indices: Sequence[int] | None = None,
        stores: Sequence[ScoreStore | None] | None = None,
    ) -> float:
        """Set `threshold_` from held-out normal images and return it; see `SmoothedDetector.calibrate`.

        Its promise is about scores estimated from n fresh draws a level, not about the sum of the true percentiles.
        """
        rank = threshold_rank(len(images), quantile)
        scores = self.score(images, range(len(images)) if indices is None else indices, "calibrate", stores)
        self.threshold_ = float(np.sort(scores)[rank - 1])
        return self.threshold_

    def bounds(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        radii: Any,
        alpha: float | None = None,
        stores: Sequence[ScoreStore | None] | None = None,
    ) -> ScoreBounds:
        """Return certified bounds (radii, images) of the score; see `certify_sum`."""
        draws = self.noisy_scores(images, indices, stores=stores)
        return certify_sum(draws, self.terms, radii, self.alpha if alpha is None else alpha)

    def predict(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        stores: Sequence[ScoreStore | None] | None = None,
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Decide each image at `threshold_`: 1 anomalous, 0 normal, -1 abstain.

        A returned 0 or 1 differs from the decision of the true score with probability <= alpha: its unattacked
        confidence bounds at alpha / 2 each lie on one side.
        """
        draws = self.noisy_scores(images, indices, "predict", stores)
        bounds = certify_sum(draws, self.terms, [0.0], self.alpha / 2).at(0)
        threshold = self._threshold()
        return np.where(bounds.lower > threshold, 1, np.where(bounds.upper <= threshold, 0, -1)).astype(
            np.int64
        )

    def radius(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        labels: Any = None,
        stores: Sequence[ScoreStore | None] | None = None,
    ) -> FloatArray:
        """Return the certified radius (images,) of the decision at `threshold_`; see `SmoothedDetector.radius`."""
        threshold = self._threshold()
        known = None if labels is None else check_binary(labels, len(images))
        draws = self.noisy_scores(images, indices, stores=stores)
        level = self.alpha if known is not None else self.alpha / 2
        anomalous = sum_radius(draws, self.terms, threshold, level, "anomalous")
        normal = sum_radius(draws, self.terms, threshold, level, "normal")
        if known is None:
            return np.maximum(anomalous, normal)
        return np.where(known == 1, anomalous, normal)

    def sampling_configs(self, purpose: str = "certify") -> list[dict[str, Any]]:
        """Return for each level the options that determine its draws; its `ScoreStore` needs `detector` besides."""
        return [level.sampling_config(purpose) for level in self.levels]

    def _threshold(self) -> float:
        if self.threshold_ is None:
            raise InputError("threshold_: not set; call calibrate on held-out normal images first")
        return self.threshold_


def level_seed(seed: int, level: int) -> int:
    """Return the master key of one level's noise, so that levels of one `seed` draw independently."""
    if seed < 0 or level < 0:
        raise InputError(f"seed and level: got {seed} and {level}, need values of at least 0")
    return int(np.random.SeedSequence(seed, spawn_key=(level,)).generate_state(1, np.uint64)[0])
