"""Auto-PGD (Croce and Hein, ICML 2020, algorithm 1) on a scalar score: a step size and a memory for each image.

The paper maximises a loss of logits; here the score itself is the loss, in the direction of each image, so nothing is
left of the parts that need classes. As in the paper the first step is 2 eps long, three quarters of a move are
gradient and one quarter is momentum, and at a checkpoint an image halves its step and returns to its best point if
too few of its moves went up, or if its best has stood still at a step size that was not reduced the time before.

`apgd` is that algorithm. `apgd_averaged` is ours: the same moves and checkpoints along a running sum of gradients, for
scores with kinks, where the latest gradient alone leads to and fro.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffad.attacks.momentum import unit_sum
from diffad.attacks.search import Search

GRADIENT_SHARE = 0.75  # of a move; the rest repeats the move before
NUDGE = 0.01  # of the ball: too little to lose what a good start is worth
LEAST_RISES = 0.75  # share of the moves between two checkpoints that must go up to keep the step size
FIRST_STEP = 2.0  # in units of eps
AVERAGED_DECAY, AVERAGED_FIRST_STEP = 0.9, 0.25  # of `apgd_averaged`


def apgd(search: Search, steps: int) -> None:
    """Ascend with the step rule of Auto-PGD; `steps` gradients, the last point is judged by its score alone.

    Of a noisy target the values that steer the steps are estimates by the fresh draws of each step: a lucky draw
    can hold an image at a point, and oscillation by noise alone halves its step. PGD with a fixed schedule is the
    control (an ensemble runs both).
    """
    adaptive_ascent(search, beside(search), range(steps))


def apgd_averaged(search: Search, steps: int) -> None:
    """Ascend with the step rule of Auto-PGD along g <- 0.9 g + gradient / |gradient|_1; costs what `apgd` does.

    A score that is a maximum (over windows, over scales) or a minimum (over neighbours) has a gradient that knows its
    leading part alone: a step lowers that and lifts the others, and single gradients take turns. Their sum moves
    all leading parts at once. What differs from Croce and Hein: the direction of a step is that of the running sum,
    which is momentum iterative FGSM's (Dong et al., CVPR 2018) with a decay below 1 so that it forgets, and which a
    return to the best point leaves as it is; the first step is eps / 4 long, because the sum turns slowly.
    """
    adaptive_ascent(search, beside(search), range(steps), AVERAGED_FIRST_STEP, AVERAGED_DECAY)


def beside(search: Search) -> Tensor:
    """Return points (b, c, h, w) beside the starts: a hundredth of the way to a random point of the ball.

    At a clean image itself the gradient of many a score is exactly zero in whole regions, such as an empty background
    that the nearest normal image shares. A sign step leaves them there for good; beside it all coordinates move.
    """
    anywhere = search.threat.random_start(search.clean, search.rows.names, seed=search.seed, restart=0)
    return search.threat.project(search.start + NUDGE * (anywhere - search.clean), search.clean)


def checkpoints(steps: int) -> list[int]:
    """Return the numbers of moves after which step sizes are reviewed: 22 % of all, then ever shorter windows.

    >>> checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    window, shrink, least = (max(int(share * steps), 1) for share in (0.22, 0.03, 0.06))
    reviews, at = [], window
    while at < steps:
        reviews.append(at)
        window = max(window - shrink, least)
        at += window
    return reviews


def adaptive_ascent(
    search: Search, start: Tensor, steps: range, first_step: float = FIRST_STEP, decay: float | None = None
) -> Tensor:
    """Return the point (b, c, h, w) with the largest objective among those visited from `start`.

    `steps` numbers the gradients within the attack, which keys their noise; `first_step` is in units of eps. With a
    `decay` the direction is that of the running sum of unit gradients, without one that of the gradient itself.
    """
    threat, clean, reviews = search.threat, search.clean, set(checkpoints(len(steps)))
    points, before = start, start
    memory, total = _Memory.empty(start, first_step * threat.eps), torch.zeros_like(start)
    for moves, step in enumerate(steps):
        gains, gradient = search.gradient(points, step)
        memory.record(points, gains, gradient)
        if moves in reviews:
            points, before, gradient = memory.review(points, before, gradient)
        if decay is not None:
            gradient = total = decay * total + unit_sum(gradient)
        target = threat.project(points + memory.size * threat.ascent(gradient), clean)
        share = GRADIENT_SHARE if moves else 1.0
        moved = points + share * (target - points) + (1.0 - share) * (points - before)
        points, before = threat.project(moved, clean), points
    search.offer(points)
    return memory.points


@dataclass
class _Memory:
    """What each image remembers: its best point, and its moves since the last checkpoint."""

    size: Tensor  # (b, 1, 1, 1), of the next step
    points: Tensor  # (b, c, h, w), the best so far, with its gain and gradient
    gains: Tensor
    gradient: Tensor
    last: Tensor  # (b,) gain of the latest point
    rises: Tensor  # (b,) moves up since the last checkpoint, out of `moves`
    moves: int
    reviewed: Tensor  # (b,) best gain at the last checkpoint
    reduced: Tensor  # (b,) whether the step was halved there

    @classmethod
    def empty(cls, start: Tensor, size: float) -> _Memory:
        """Begin at `start`; as in the paper's code the first checkpoint counts as following a reduction."""
        nothing = start.new_full((len(start),), -torch.inf)
        return cls(
            size=start.new_full((len(start), 1, 1, 1), size),
            points=start.clone(),
            gains=nothing.clone(),
            gradient=torch.zeros_like(start),
            last=nothing.clone(),
            rises=torch.zeros_like(nothing),
            moves=-1,  # the start is no move
            reviewed=nothing.clone(),
            reduced=torch.ones_like(nothing, dtype=torch.bool),
        )

    def record(self, points: Tensor, gains: Tensor, gradient: Tensor) -> None:
        """Note the latest point."""
        better = gains > self.gains
        self.points[better], self.gains[better] = points[better], gains[better].to(self.gains)
        self.gradient[better] = gradient[better].to(self.gradient)
        if self.moves >= 0:
            self.rises += gains > self.last
        self.last, self.moves = gains, self.moves + 1

    def review(self, points: Tensor, before: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Halve the step where it is due; return point, point before and gradient to go on from."""
        stuck = ~self.reduced & (self.gains <= self.reviewed)
        due = (self.rises <= LEAST_RISES * self.moves) | stuck
        self.reduced, self.reviewed = due, self.gains.clone()
        self.rises, self.moves = torch.zeros_like(self.rises), 0
        where = due.view(-1, 1, 1, 1)
        self.size = torch.where(where, self.size / 2, self.size)
        # the momentum of a point that is left behind is dropped: it does not lead to the best one
        start = torch.where(where, self.points, points)
        return start, torch.where(where, self.points, before), torch.where(where, self.gradient, gradient)
