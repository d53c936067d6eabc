"""Certify a whole AUROC with draws only for the images that still matter to it.

An AUROC counts pairs (anomaly, normal), and a certificate wins a pair once the anomaly's lower bound exceeds
the normal's upper bound. Most pairs are won, or can't be, after a few draws. So all images are drawn look by
look; an image stops when none of its pairs is undecided.

Soundness. Image i spends its level alpha_i over all its looks (`certify.sequential_ranks`): the event E_i,
that one of its bounds *at any look up to the last, drawn or not,* is wrong, has probability <= alpha_i and
depends on the noise of image i alone. Outside the union of the E_i every bound ever looked at is right, so
which images stop, when, and for what reason, even one that reads all draws, cannot harm the level. The E_i
are independent if the noise is, so the failure count of `certify.confidence` may be used as well. The
statement about a population may not: the bound of one test image depends on the draws of the others through
the stopping, so the bounds are no independent sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from certify.adaptive import DrawSource, outwards
from certify.checks import InputError, check_choice, check_labels, check_level, check_positive, check_radii
from certify.noise import NOISE_CHUNK
from certify.sequential import BoolArray, IntArray, default_looks
from certify.sequential_ranks import sequential_ranks, shifted_rates
from certify.types import SIDES, FloatArray, ScoreBounds, Side

# A pair is hopeless if bounds this many standard deviations better than foreseen would still not win it.
OPTIMISM = 2.0


@dataclass(frozen=True)
class AdaptiveBounds:
    """Bounds drawn as far as the AUROC needs them, for `certify.auroc` and its like.

    Attributes:
        bounds: (radii, images): lower ends of the anomalies and upper ends of the normals; the other ends are
            infinite, since no level was spent on them.
        unattacked: (images,), the same at radius 0, for the sides `in`, `out` and `clean`.
        samples: (images,) draws used.
        undecided: (radii, sides) share of the pairs on which drawing stopped undecided.
        looks: numbers of draws at which it looked.
        alpha_per_image: level of each image over all looks.
    """

    bounds: ScoreBounds
    unattacked: ScoreBounds
    samples: IntArray
    undecided: FloatArray
    looks: tuple[int, ...]
    alpha_per_image: float

    @property
    def saving(self) -> float:
        """Share of a fixed number of draws, the last look for every image, that was not spent, in [0, 1]."""
        return 1.0 - float(self.samples.mean()) / self.looks[-1]


def adaptive_bounds(
    pool: DrawSource,
    labels: Any,
    *,
    sigma: float,
    radii: Any,
    max_samples: int,
    alpha_per_image: float,
    sides: Sequence[Side] = ("both",),
    lipschitz: float = 0.0,
    percentile: float = 0.5,
    looks: int = 20,
    spending_power: float = 0.4,
    tolerance: float = 0.001,
    multiple: int = NOISE_CHUNK,
) -> AdaptiveBounds:
    """Bound the smoothed scores until the AUROC of each radius and side is as good as `max_samples` make it.

    Args:
        pool: the draws of the images, row i belonging to labels[i].
        labels: (images,), 0 normal and 1 anomalous, both present.
        sigma: standard deviation of the noise, in pixel units of [0, 1].
        radii: L2 radii >= 0 in the same units.
        max_samples: draws an image, at most: the last look.
        alpha_per_image: level of the one bound that an image has in each cell (one radius, one side), over
            all looks, in (0, 0.5): alpha / images for the union bound, see `alpha_per_image` and
            `auroc_confidence`.
        sides: who is attacked, of SIDES; an image draws as long as one of these cells needs it.
        lipschitz: the L of the split certificate; 0 only if the score is a function of x + noise alone.
        percentile: p of the smoothed score, in (0, 1).
        looks: how often to look, about; they are those of `default_looks`, for the smallest radius in use.
        spending_power: see `group_sequential_plan`.
        tolerance: a cell stops when at most this share of its pairs is undecided, in [0, 1).
        multiple: looks are raised to multiples of it, best the draws that an image has in a forward batch.

    Raises:
        InputError: for a value outside these ranges, or if `max_samples` leave every bound infinite.
    """
    anomalous = check_labels(labels) == 1
    check_positive(sigma, "sigma")
    check_level(alpha_per_image)
    radii = check_radii(np.atleast_1d(np.asarray(radii, dtype=np.float64)))
    if not sides:
        raise InputError(f"sides: got none, allowed are {', '.join(SIDES)}")
    if not (math.isfinite(lipschitz) and lipschitz >= 0.0):
        raise InputError(f"lipschitz: got {lipschitz}, need a finite constant of at least 0")
    if not 0.0 <= tolerance < 1.0:
        raise InputError(f"tolerance: got {tolerance}, need a share of the pairs in [0, 1)")
    known = np.concatenate([[0.0], radii])  # radius 0 first: the images left alone
    cells = [_cell(side, position + 1) for position in range(len(radii)) for side in sides]
    least = min(known[row] for cell in cells for row in cell)
    rate = min(shifted_rates(percentile, float(least) / sigma))
    schedule = default_looks(
        rate.p0, alpha_per_image, max_samples, looks, multiple=multiple, complement=rate.complement
    )
    ranks = [
        sequential_ranks(
            schedule, percentile, float(r) / sigma, alpha_per_image, spending_power=spending_power
        )
        for r in known
    ]
    race = _Race(anomalous, cells, schedule, _mirrored(ranks, schedule), lipschitz * known, tolerance)
    race.run(pool)
    return AdaptiveBounds(
        race.bounds(range(1, len(known))),
        race.bounds([0]).at(0),
        race.samples,
        np.array(race.left).reshape(len(radii), len(sides)),
        schedule,
        alpha_per_image,
    )


def _cell(side: Side, attacked: int) -> tuple[int, int]:
    """Return which radius, by position, counts for the anomalies and for the normals; 0 is no attack."""
    check_choice(side, SIDES, "side")
    return (
        attacked if side in ("out", "both") else 0,
        attacked if side in ("in", "both") else 0,
    )


def _mirrored(ranks: Sequence[tuple[tuple[int, ...], tuple[int, ...]]], looks: tuple[int, ...]) -> IntArray:
    """Return the ranks (2, radii, looks) of lower bounds: of the scores, and of minus the scores."""
    lower = [low for low, _ in ranks]
    upper = [[n + 1 - rank for n, rank in zip(looks, high, strict=True)] for _, high in ranks]
    return np.array([lower, upper], dtype=np.int64)


class _Race:
    """Anomalies against normals, look by look.

    Normals enter with minus their scores, so that every image has a lower bound, `reached`, which rises, and
    pair (i, j) is won once reached_i > -reached_j. `hope` is what the last look would reach with luck; it
    only saves draws, so nothing need hold of it.
    """

    def __init__(
        self,
        anomalous: BoolArray,
        cells: Sequence[tuple[int, int]],
        looks: tuple[int, ...],
        ranks: IntArray,
        margins: FloatArray,
        tolerance: float,
    ) -> None:
        self.anomalous, self.cells, self.looks, self.tolerance = anomalous, cells, looks, tolerance
        self.ranks, self.margins = ranks, margins
        self.reached = np.full((len(margins), len(anomalous)), -np.inf)
        self.hope = np.full_like(self.reached, np.inf)
        self.samples = np.zeros(len(anomalous), dtype=np.int64)
        pairs = (int(anomalous.sum()), int((~anomalous).sum()))
        self.undecided = [np.ones(pairs, dtype=np.bool_) for _ in cells]
        self.left = [1.0] * len(cells)

    def run(self, pool: DrawSource) -> None:
        """Draw until no pair is undecided, or to the last look."""
        for look in range(len(self.looks)):
            rows = self._rows()
            if not rows:
                return
            n = self.looks[look]
            pool.extend(dict.fromkeys(rows, n))
            for row in rows:
                self._see(row, look, pool.draws(row)[:n])
            self._decide()

    def bounds(self, known: Sequence[int]) -> ScoreBounds:
        """Return the intervals at the radii of these positions."""
        best = self.reached[list(known)]
        return ScoreBounds(np.where(self.anomalous, best, -np.inf), np.where(self.anomalous, np.inf, -best))

    def _rows(self) -> list[int]:
        """Return the images that have an undecided pair."""
        matters = np.zeros(len(self.anomalous), dtype=np.bool_)
        matters[self.anomalous] = np.any([pairs.any(axis=1) for pairs in self.undecided], axis=0)
        matters[~self.anomalous] = np.any([pairs.any(axis=0) for pairs in self.undecided], axis=0)
        return [int(row) for row in np.flatnonzero(matters)]

    def _see(self, row: int, look: int, draws: FloatArray) -> None:
        """Raise what an image has reached, and foresee what it may reach at the last look."""
        if draws.ndim != 1:
            raise InputError(f"draws: got shape {draws.shape}, need (n,): one score makes an AUROC")
        signed = draws if self.anomalous[row] else -draws
        ordered = np.sort(np.where(np.isnan(signed), -np.inf, signed))
        ladder = np.concatenate([[-np.inf], ordered, [np.inf]])  # by rank; 0 none, n + 1 beyond all draws
        ranks = self.ranks[0 if self.anomalous[row] else 1]
        now = outwards(ladder[ranks[:, look]], self.margins)
        self.reached[:, row] = np.maximum(self.reached[:, row], now)
        n, final, last = len(draws), ranks[:, -1], self.looks[-1]
        quantile = final / last
        luck = OPTIMISM * np.sqrt(quantile * (1.0 - quantile) / n)
        foreseen = np.minimum(np.ceil((quantile + luck) * n).astype(np.int64), n + 1)
        foreseen = np.where((final > 0) & (n < last), foreseen, final)
        self.hope[:, row] = outwards(ladder[foreseen], self.margins)
        self.samples[row] = n

    def _decide(self) -> None:
        """Settle pairs that are won or hopeless, for good, and cells with hardly any others."""
        for cell, (attacked, defended) in enumerate(self.cells):
            won = self._compare(self.reached, attacked, defended, np.greater)
            hopeless = self._compare(np.maximum(self.reached, self.hope), attacked, defended, np.less)
            self.undecided[cell] &= ~(won | hopeless)
            if self.left[cell] > self.tolerance:
                self.left[cell] = float(self.undecided[cell].mean())
            if self.left[cell] <= self.tolerance:
                self.undecided[cell][:] = False

    def _compare(self, ends: FloatArray, attacked: int, defended: int, order: np.ufunc) -> BoolArray:
        return np.asarray(
            order.outer(ends[attacked, self.anomalous], -ends[defended, ~self.anomalous]), dtype=np.bool_
        )
