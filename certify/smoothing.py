"""SmoothedDetector: the percentile of a detector's score under Gaussian noise, in one of five ways.

What is certified is the percentile under *fresh* noise. A detector deployed with fixed, known noise is
another object; deployment draws a secret key of its own (`certify.fresh_seed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.certificate import (
    certified_radius,
    certify_scores,
    lipschitz_bounds,
    lipschitz_radius,
    percentile_scores,
    predict_scores,
)
from certify.checks import InputError, check_binary, check_choice, check_images, check_probability
from certify.conformal import exact_level
from certify.identity import check_identity
from certify.pool import DrawPool, NoisyScore, sampling_config
from certify.shards import Shard
from certify.store import ScoreStore
from certify.types import FloatArray, ScoreBounds
from certify.ways import WAYS, Way, check_eval, make_base, needed_method, proven_constant


class SmoothedDetector:
    """The percentile of a detector's noisy score, with certificates for every L2 ball.

    Args:
        detector: any object with what its way needs (see `make_base`; `none` needs a float `lipschitz` and
            `score_interval(images)`, the float64 enclosure (lower, upper) of the score). For `input` a plain
            callable `score(images) -> (batch,)` will do.
        sigma: standard deviation of the noise in pixel units of [0, 1]; None for `none` only.
        smoothing: the way, one of WAYS.
        n: draws an image.
        alpha: one-sided error level an image of `bounds` and `radius`, two-sided of `predict`, in (0, 0.5).
        percentile: p of the smoothed score, in (0, 1).
        seed: master key of all noise. Whoever knows it when making an image can fit the image to the noise, which voids
            `bounds`, `predict` and `radius` of it. The default is public: it serves to repeat an evaluation of images
            that nobody made with it in mind, such as a benchmark's. Elsewhere give `fresh_seed()`, drawn after the
            images are fixed or kept secret until then; images of one key need indices of their own.
        batch_size: images a forward pass, a multiple of images_per_batch * NOISE_CHUNK.
        images_per_batch: images whose draws share a forward pass; see `DrawPool`.
        grid: integer noise for 8-bit images, sound for attackers who submit such images; see `certify.noise`.
        shard: the share of this process if several work together (`current_shard`); draws then need a store.
        device: where the detector computes; it must be there already.
        purifier: the object whose `reconstruct` is used by `denoise` and `reference`; by default the detector.

    Attributes:
        threshold_: set by `calibrate`; `score > threshold_` flags.
        lipschitz: the constant L of the certificate.
        base: the score of (clean, noisy) that is drawn under noise, differentiable where the detector is;
            None for `none`.
    """

    def __init__(
        self,
        detector: Any,
        sigma: float | None,
        smoothing: Way = "reference",
        *,
        n: int = 1000,
        alpha: float = 0.001,
        percentile: float = 0.5,
        seed: int = 0,
        batch_size: int = 250,
        images_per_batch: int = 1,
        grid: bool = False,
        shard: Shard | None = None,
        device: str | torch.device = "cpu",
        purifier: Any = None,
    ) -> None:
        check_choice(smoothing, WAYS, "smoothing")
        check_probability(percentile, "percentile")
        self.detector, self.purifier, self.smoothing, self.sigma = detector, purifier, smoothing, sigma
        self.n, self.alpha, self.percentile, self.seed = n, alpha, percentile, seed
        self.batch_size, self.images_per_batch = batch_size, images_per_batch
        self.grid, self.shard, self.device = grid, shard, device
        self._probed = False
        self.threshold_: float | None = None
        self.base: NoisyScore | None = None
        if smoothing == "none":
            check_eval(detector)
            needed_method(detector, "score_interval", smoothing)
            self.lipschitz = proven_constant(detector, "lipschitz", smoothing)
        elif sigma is None:
            raise InputError(f"sigma: smoothing {smoothing!r} needs one, for example 0.25")
        else:
            self.base, self.lipschitz = make_base(detector, smoothing, sigma=sigma, purifier=purifier)

    def draw_pool(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        purpose: str = "certify",
        store: ScoreStore | None = None,
    ) -> DrawPool:
        """Return a pool of this detector's noisy scores, to be drawn on demand.

        A store must be of this detector (see `sampling_config`), or InputError is raised.
        """
        if self.base is None or self.sigma is None:
            raise InputError("smoothing 'none' draws no noise; use bounds, score, predict or radius")
        if store is not None:
            check_identity(store, self.smoothing, self.detector, self.purifier)
        return DrawPool(
            self.base,
            images,
            indices,
            sigma=self.sigma,
            seed=self.seed,
            purpose=purpose,
            batch_size=self.batch_size,
            images_per_batch=self.images_per_batch,
            device=self.device,
            store=store,
            grid=self.grid,
            shard=self.shard,
            label=f"{purpose}, {self.smoothing}, sigma {self.sigma:g}",
            name=getattr(self.detector, "__name__", type(self.detector).__name__),
            probe=not self._probed,
        )

    def noisy_scores(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        purpose: str = "certify",
        store: ScoreStore | None = None,
    ) -> FloatArray:
        """Draw the scores (images, n) from which all else follows. See `sample_scores`."""
        pool = self.draw_pool(images, indices, purpose, store)
        scores = pool.all_draws(self.n)
        self._probed = self._probed or pool.probed
        return scores

    def score(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        purpose: str = "evaluate",
        store: ScoreStore | None = None,
    ) -> FloatArray:
        """Estimate the smoothed score (images,) from n draws; for `none` the middle of the enclosure."""
        if self.smoothing == "none":
            lower, upper = self._enclosure(images)
            return (lower + upper) / 2
        return percentile_scores(self.noisy_scores(images, indices, purpose, store), self.percentile)

    def calibrate(
        self,
        images: Float[Tensor, "b c h w"],
        quantile: float = 0.95,
        indices: Sequence[int] | None = None,
        store: ScoreStore | None = None,
    ) -> float:
        """Set `threshold_` from the scores of held-out normal images and return it.

        It is the ceil((images + 1) * quantile)-th smallest score (split conformal): a fresh normal image,
        exchangeable with these and scored in the same way (`score`, n fresh draws), exceeds it with probability at
        most 1 - quantile. That is about estimates from n draws; for the percentile itself, which is what `bounds`
        and `predict` speak of, take `robust_conformal_threshold` of the upper bounds at radius 0.

        Raises:
            InputError: if there are too few images for that rank.
        """
        rank = threshold_rank(len(images), quantile)
        scores = self.score(images, range(len(images)) if indices is None else indices, "calibrate", store)
        self.threshold_ = float(np.sort(scores)[rank - 1])
        return self.threshold_

    def bounds(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        radii: Any,
        alpha: float | None = None,
        store: ScoreStore | None = None,
    ) -> ScoreBounds:
        """Return certified bounds (radii, images) of the smoothed score; see `certify_scores`."""
        if self.smoothing == "none":
            return lipschitz_bounds(*self._enclosure(images), self.lipschitz, radii)
        scores = self.noisy_scores(images, indices, store=store)
        return certify_scores(
            scores,
            self._sigma(),
            radii,
            self.alpha if alpha is None else alpha,
            self.lipschitz,
            self.percentile,
        )

    def predict(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        store: ScoreStore | None = None,
    ) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Decide each image at `threshold_`: 1 anomalous, 0 normal, -1 abstain (see `predict_scores`).

        The way `none` abstains only where the enclosure of the score holds the threshold, lower <= threshold < upper.
        """
        if self.smoothing == "none":
            threshold, (lower, upper) = self._threshold(), self._enclosure(images)
            return np.where(lower > threshold, 1, np.where(upper <= threshold, 0, -1)).astype(np.int64)
        scores = self.noisy_scores(images, indices, "predict", store)
        return predict_scores(scores, self._threshold(), self.alpha, self.percentile)

    def radius(
        self,
        images: Float[Tensor, "b c h w"],
        indices: Sequence[int],
        labels: Any = None,
        store: ScoreStore | None = None,
    ) -> FloatArray:
        """Return the certified radius (images,) of the decision at `threshold_`, 0.0 where nothing is certified.

        With `labels` (0 normal, 1 anomalous) the right decision is certified at level alpha: 0.0 for a wrong
        one. Without them both decisions are tried at alpha / 2 each and the larger radius is returned (at
        most one is above 0).

        Raises:
            InputError: if labels are other than 0 and 1, or not one an image.
        """
        known = None if labels is None else check_binary(labels, len(images))
        level = self.alpha if known is not None else self.alpha / 2
        if self.smoothing == "none":
            ends = self._enclosure(images)
            anomalous = lipschitz_radius(*ends, self._threshold(), self.lipschitz, "anomalous")
            normal = lipschitz_radius(*ends, self._threshold(), self.lipschitz, "normal")
        else:
            scores = self.noisy_scores(images, indices, store=store)
            options = (self._threshold(), self._sigma(), level)
            anomalous = certified_radius(scores, *options, "anomalous", self.lipschitz, self.percentile)
            normal = certified_radius(scores, *options, "normal", self.lipschitz, self.percentile)
        if known is None:
            return np.maximum(anomalous, normal)
        return np.where(known == 1, anomalous, normal)

    def sampling_config(self, purpose: str = "certify") -> dict[str, Any]:
        """Return the options that determine the noisy scores, all but who scores them.

        A `ScoreStore` needs that too: add `"detector"`, its `fingerprint()` or, for a score that has none, a name of
        yours that changes whenever the score does; likewise `"purifier"` where one was given.
        """
        options = sampling_config(
            sigma=self._sigma(),
            seed=self.seed,
            purpose=purpose,
            batch_size=self.batch_size,
            images_per_batch=self.images_per_batch,
            grid=self.grid,
        )
        return {"smoothing": self.smoothing, **options}

    def _enclosure(self, images: Tensor) -> tuple[FloatArray, FloatArray]:
        check_images(images)
        with torch.no_grad():
            lower, upper = self.detector.score_interval(images.to(self.device))
        return np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)

    def _sigma(self) -> float:
        if self.sigma is None:
            raise InputError("smoothing 'none' has no sigma")
        return self.sigma

    def _threshold(self) -> float:
        if self.threshold_ is None:
            raise InputError("threshold_: not set; call calibrate on held-out normal images first")
        return self.threshold_


def threshold_rank(count: int, quantile: float) -> int:
    """Return ceil((count + 1) * quantile), the rank (1-based) of a threshold among `count` calibration scores."""
    check_probability(quantile, "quantile")
    level = exact_level(quantile)
    rank = math.ceil((count + 1) * level)
    if rank > count:
        need = math.ceil(level / (1 - level))
        largest = math.floor(1000 * count / (count + 1)) / 1000
        raise InputError(
            f"calibrate: got {count} normal images, need at least {need} for the quantile {quantile}; add training "
            f"images (a tenth of them is held out for this), or take a quantile of at most {largest:g}"
        )
    return rank
