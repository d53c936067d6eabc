"""Deciding one image at a time: normal, anomalous or abstain, with the certified radius and what it cost.

Two rules, both with independent draws to guess the side and fresh ones to certify it (Cohen et al., ICML 2019):
a fixed number of draws, which also says how far the decision holds; or a group-sequential test at one radius,
which stops as soon as it knows. A decision that is returned differs from the smoothed detector's, or fails
somewhere within its radius, with probability at most alpha over the noise. The noise must be new to whoever made
the image: `certify.fresh_seed`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from certify.adaptive import certify_decisions
from certify.bounds import linf_reading
from certify.certificate import Decision, certified_radius, lipschitz_radius
from certify.checks import InputError, check_level, check_positive
from certify.noise import NOISE_CHUNK, noise_chunk_count
from certify.pool import DrawPool
from certify.sequential import fewest_draws
from certify.sequential_ranks import shifted_rates
from certify.smoothing import SmoothedDetector
from certify.types import FloatArray
from diffad.detector import Detector

SELECTION = 100  # draws that guess the side, as Cohen et al. take them; never part of the certificate
ABSTAIN = "abstain"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How an image is decided.

    Args:
        seed: master key of the noise, in deployment a `fresh_seed()`.
        alpha: probability that a returned decision or its radius is wrong, an image, over the noise.
        n: draws of the fixed rule.
        radius: L2 radius at which the sequential rule decides; None: the fixed rule.
        max_samples: most draws of the sequential rule.
    """

    seed: int
    alpha: float = 0.001
    n: int = 1000
    radius: float | None = None
    max_samples: int = 10_000

    def __post_init__(self) -> None:
        """Refuse values out of range before anything is drawn."""
        check_level(self.alpha)
        if self.radius is not None:
            check_positive(self.radius, "radius")
        for name, least in (("n", 1), ("max_samples", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least {least}")


@dataclass(frozen=True)
class Prediction:
    """One image decided.

    `decision` is `normal`, `anomalous` or `abstain`; `radius` (L2, [0, 1] pixel units; 0.0 where nothing is
    certified) is how far it holds, `linf` the Linf ball inside; `score` estimates the smoothed score from the
    certifying draws, None if some are NaN; `draws` are those that certify, `passes` all images scored.
    """

    image: str
    decision: str
    radius: float
    linf: float
    score: float | None
    draws: int
    invalid: int
    passes: int
    seconds: float


@dataclass(frozen=True)
class Deployed:
    """A smoothed detector with its threshold, and where that comes from: `text` and facts for a manifest.

    `purifier` is the fingerprint of what denoises for it, None if it does so by itself or not at all.
    """

    detector: Detector
    smoothed: SmoothedDetector
    origin: dict[str, Any]
    purifier: str | None = None


def decide(
    smoothed: SmoothedDetector,
    image: Float[Tensor, "c h w"],
    index: int,
    rule: Rule,
    *,
    name: str = "",
    probe: bool = True,
) -> Prediction:
    """Decide one image in [0, 1] at `smoothed.threshold_`.

    `index` keys its noise: no two images of one seed may share it. `probe` checks first that images of a batch do
    not influence each other; once for a detector is enough.
    """
    start = time.perf_counter()
    if smoothed.threshold_ is None:
        raise InputError("threshold_: not set; call calibrate on held-out normal images first")
    check_budget(smoothed, rule)
    if smoothed.base is None:
        side, radius, scores, draws, passes = *_without_noise(smoothed, image, rule), 0, 1
    else:
        guesses = _pool(smoothed, image, index, rule, "select", min(smoothed.batch_size, SELECTION), probe)
        guesses.extend({0: SELECTION})
        side = _likelier(guesses.draws(0), smoothed.threshold_, smoothed.percentile)
        needed = noise_chunk_count(rule.n) * NOISE_CHUNK if rule.radius is None else smoothed.batch_size
        size = min(smoothed.batch_size, needed)  # no draw beyond those that count
        pool = _pool(smoothed, image, index, rule, "predict", size, probe=False)
        radius = (_at_radius if rule.radius is not None else _fixed)(smoothed, pool, side, rule)
        scores = pool.draws(0)
        draws, passes = len(scores), guesses.passes + pool.passes
    return Prediction(
        image=name,
        decision=side if radius > 0.0 else ABSTAIN,
        radius=radius,
        linf=linf_reading(radius, image.numel()),
        score=_estimate(scores, smoothed.percentile),
        draws=draws,
        invalid=int(np.isnan(scores).sum()),
        passes=passes,
        seconds=time.perf_counter() - start,
    )


def check_budget(smoothed: SmoothedDetector, rule: Rule) -> None:
    """Refuse, before anything is drawn, a sequential rule whose `max_samples` could never decide at its radius."""
    if rule.radius is None or smoothed.sigma is None or smoothed.base is None:
        return
    rates = shifted_rates(smoothed.percentile, rule.radius / smoothed.sigma)
    need = max(fewest_draws(rate.p0, rule.alpha, complement=rate.complement) for rate in rates)
    if need > rule.max_samples:
        raise InputError(
            f"max_samples: got {rule.max_samples}, need at least {need} to certify L2 {rule.radius:g} "
            f"at sigma {smoothed.sigma:g}; raise it, or sigma"
        )


def _pool(
    smoothed: SmoothedDetector,
    image: Tensor,
    index: int,
    rule: Rule,
    purpose: str,
    batch_size: int,
    probe: bool,
) -> DrawPool:
    assert smoothed.base is not None
    assert smoothed.sigma is not None
    return DrawPool(
        smoothed.base,
        image[None],
        [index],
        sigma=smoothed.sigma,
        seed=rule.seed,
        purpose=purpose,
        batch_size=batch_size,
        device=smoothed.device,
        grid=smoothed.grid,
        name=type(smoothed.detector).__name__,
        probe=probe,
    )


def _likelier(scores: FloatArray, threshold: float, percentile: float) -> Decision:
    """Guess the side from draws that certify nothing: any guess is sound."""
    return "normal" if (scores <= threshold).mean() >= percentile else "anomalous"


def _fixed(smoothed: SmoothedDetector, pool: DrawPool, side: Decision, rule: Rule) -> float:
    """Return the certified radius of `side` from n draws."""
    assert smoothed.threshold_ is not None
    assert smoothed.sigma is not None
    pool.extend({0: rule.n})
    options = (smoothed.threshold_, smoothed.sigma, rule.alpha, side)
    radii = certified_radius(
        pool.draws(0)[None], *options, lipschitz=smoothed.lipschitz, percentile=smoothed.percentile
    )
    return float(radii[0])


def _at_radius(smoothed: SmoothedDetector, pool: DrawPool, side: Decision, rule: Rule) -> float:
    """Return rule.radius if the group-sequential test certifies `side` there, else 0."""
    assert rule.radius is not None
    assert smoothed.threshold_ is not None
    assert smoothed.sigma is not None
    found = certify_decisions(
        pool,
        smoothed.threshold_,
        [side],
        sigma=smoothed.sigma,
        radius=rule.radius,
        max_samples=rule.max_samples,
        alpha=rule.alpha,
        lipschitz=smoothed.lipschitz,
        percentile=smoothed.percentile,
        multiple=NOISE_CHUNK,  # not the batch: no decision depends on its size
    )
    return rule.radius if found.certified[0] else 0.0


def _without_noise(
    smoothed: SmoothedDetector, image: Tensor, rule: Rule
) -> tuple[Decision, float, FloatArray]:
    """Decide by the Lipschitz constant: exact, the same for every key."""
    assert smoothed.threshold_ is not None
    ends = smoothed.bounds(image[None], [0], [0.0]).at(0)
    score = (ends.lower + ends.upper) / 2
    side: Decision = "anomalous" if score[0] > smoothed.threshold_ else "normal"
    radius = float(lipschitz_radius(ends.lower, ends.upper, smoothed.threshold_, smoothed.lipschitz, side)[0])
    if rule.radius is not None:
        radius = rule.radius if radius >= rule.radius else 0.0
    return side, radius, score


def _estimate(scores: FloatArray, percentile: float) -> float | None:
    rank = max(1, math.ceil(round(percentile * len(scores), 9)))
    return None if np.isnan(scores).any() else float(np.sort(scores)[rank - 1])
