"""One batch under attack: where it starts, what it asks of the detector, and the worst point of each row.

An optimiser is a function `run(search, steps)`. It asks for gradients (`search.gradient`) or for scores alone
(`search.query`), moves inside `search.threat`, and returns nothing: every point that it visits is a candidate.
A row is one restart of one image, so that images and restarts share the forward passes, and a row is never
dropped because it has "succeeded": an AUROC uses all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from certify.types import FloatArray, ScoreFunction
from diffad.attacks.objective import GradientCount, Objective, Rows, evaluate, score_gradient
from diffad.attacks.target import ScoreTarget, Target
from diffad.attacks.threat import ThreatModel

Optimiser: TypeAlias = Callable[["Search", int], None]
_STREAM = (
    5,
    2,
)  # the sampler's purpose "attack", then a marker: optimisers share no stream with noise or starts


@dataclass(frozen=True)
class Material:
    """What an attacker may know beside the detector.

    `references` (m, c, h, w): images of both labels with their scores (m,), to steal from; `features` maps images
    to features (b, d), in which the nearest reference is looked for (None: pixels); `sources` are other detectors
    by name, to craft transferred attacks on.
    """

    references: Tensor | None = None
    reference_scores: FloatArray | None = None
    features: ScoreFunction | None = None
    sources: dict[str, ScoreFunction] = field(default_factory=dict)


@dataclass
class Search:
    """The state of one batch; tensors are on the device of the target.

    Attributes:
        clean, start: (b, c, h, w); `direction` (b,) is +1 where the score is to be raised, -1 where lowered.
        rows: image and restart of each row.
        count: gradients and scores asked for so far.
        own: the target's own objective, by which a noisy target is asked; None: `objective` is that.
        trace: after each gradient or query (b,) the largest gain so far; of a noisy target the latest estimate.
    """

    target: Target
    objective: Objective
    threat: ThreatModel
    clean: Tensor
    start: Tensor
    direction: Tensor
    rows: Rows
    steps: int
    seed: int
    material: Material = field(default_factory=Material)
    count: GradientCount = field(default_factory=GradientCount)
    own: Objective | None = None
    trace: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with the clean point; of a noisy target with nothing."""
        self._best = self.clean.clone()
        self._best_gains = torch.full_like(self.direction, -torch.inf)
        self._last, self._total, self._visits, self._queried = (
            self.start,
            torch.zeros_like(self.start),
            0,
            False,
        )
        self._judged: list[tuple[Tensor, FloatArray]] = []

    # ---- what an optimiser asks for

    def gradient(self, points: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Return the gains (b,) of the objective and its gradient (b, c, h, w), ascending for the attacker.

        The points become candidates. `step` keys fresh noise where the objective has any.
        """
        values, gradient = score_gradient(
            lambda images: self.objective(images, self.rows, step), points, self.direction, self.count
        )
        gains = self.direction * values
        self._walk(points)
        if self.target.noisy:
            self.trace.append(gains.detach().clone())
        else:
            self._keep(points, gains if self.objective.exact else self._gains(points))
        return gains, gradient

    def query(self, points: Tensor) -> Tensor:
        """Return the gains (b,) of the target by its scores alone; the points become candidates.

        A noisy target is asked under draws that are the same at every query of a row, so that points compare.
        """
        gains = self._gains(points)
        self._queried = True
        self._keep(points, gains)
        return gains

    def judge(self, points: Tensor) -> Tensor:
        """Return the gains (b,) of a noisy target by the many draws that choose at the end; they are candidates."""
        self.count.queries += len(points)
        self._judged.append(self._select(points))
        return torch.from_numpy(self._judged[-1][1]).to(self.direction)

    def offer(self, points: Tensor) -> None:
        """Make points candidates that need no gradient: the last ones, or a guess."""
        self._walk(points)
        if not self.target.noisy:
            self._keep(points, self._gains(points))

    def generator(self, row: int, stream: int) -> np.random.Generator:
        """Return the random stream of one row, keyed by seed, image, restart and the optimiser's own number."""
        key = (*_STREAM, self.rows.names[row], self.rows.restarts[row], stream)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(self.seed, spawn_key=key)))

    # ---- what is kept

    def _gains(self, points: Tensor) -> Tensor:
        self.count.queries += len(points)
        if isinstance(self.target, ScoreTarget):
            return self.direction * evaluate(self.target.score, points)
        if not self.target.noisy and not self.objective.exact:
            scores = self.target.scores(points.detach().cpu(), self.rows.names, "select")
            return self.direction * torch.from_numpy(scores).to(self.direction)
        with torch.no_grad():  # a surrogate is for gradients alone
            return self.direction * (self.own or self.objective)(points, self.rows, 0).detach()

    def _walk(self, points: Tensor) -> None:
        """Note the points of a gradient's path; of a noisy target those of its second half are averaged."""
        self._last, self._visits = points, self._visits + 1
        if self.target.noisy and self._visits > self.steps // 2 + 1:
            self._total += points

    def _keep(self, points: Tensor, gains: Tensor) -> None:
        """Keep the best of points whose gains compare; fresh draws of a noisy target at each step do not."""
        better = gains > self._best_gains
        self._best = torch.where(better.view(-1, 1, 1, 1), points, self._best)
        self._best_gains = torch.where(better, gains.to(self._best_gains), self._best_gains)
        self.trace.append(gains.detach().clone() if self.target.noisy else self._best_gains)

    def finish(self) -> tuple[Tensor, FloatArray]:
        """Return on the CPU the worst point of each row (b, c, h, w) and its gain float64 (b,).

        Of a noisy target the candidates are few, since telling them apart takes draws (purpose `select`): what was
        judged by them already, the best of all queries, and of a path of gradients the last point and the mean of those
        of its second half (in the ball, which is convex, and less noisy).
        """
        if not self.target.noisy:
            return self._best.cpu(), self._best_gains.double().cpu().numpy()
        candidates = [self._best] if self._queried else []
        if self._visits:
            candidates.append(self._last)
        averaged = self._visits - self.steps // 2 - 1
        if averaged > 0:
            candidates.append(self.threat.project(self._total / averaged, self.clean))
        (points, gains), *others = self._judged + [self._select(points) for points in candidates]
        for more, gained in others:
            better = gained > gains
            points[better], gains[better] = more[better], gained[better]
        return points, gains

    def _select(self, points: Tensor) -> tuple[Tensor, FloatArray]:
        cpu = points.detach().cpu().clone()
        scores = self.target.scores(cpu, self.rows.names, "select")
        return cpu, self.direction.double().cpu().numpy() * scores


def best_of_restarts(
    points: Tensor, gains: FloatArray, images: Sequence[int], count: int
) -> tuple[Tensor, FloatArray]:
    """Return for each of `count` images the row with the largest gain; `images` (rows,) says whose each row is.

    Never by batch: two images keep different restarts. The first of equal rows is kept.
    """
    owner, best = np.asarray(images), np.full(count, -1)
    for row, image in enumerate(owner):
        if best[image] < 0 or gains[row] > gains[best[image]]:
            best[image] = row
    return points[torch.from_numpy(best)], gains[best]
