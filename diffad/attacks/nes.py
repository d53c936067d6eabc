"""Gradient ascent without gradients: NES and SPSA estimate the direction from pairs of scores.

NES (Ilyas et al., ICML 2018) probes along Gaussian directions u, SPSA (Spall, IEEE TAC 1992; Uesato et al., ICML 2018)
along random signs: (score(x + u) - score(x - u)) u, averaged over pairs, points uphill on average. Both climb where
autograd is cut off, rounded or saturated, and need a score that changes over the length of a probe.

Two things differ from the literature. A probe is projected into ball and box before it is asked, since every point that
an attack looks at must be an image that the attacker may show; the estimate uses where the two ends really are. And
estimates are added up with momentum over the steps, which in Linf gains about a sixth on 16 x 16 digits.

The number of pairs that a good estimate takes grows with the number of pixels: in large images a thousand scores tell
little, and that an attack fails there says nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from certify.types import FloatArray
from diffad.attacks.pgd import step_sizes
from diffad.attacks.search import Search

_STREAM = 14
_PAIRS = 10  # a step
_PROBE = 0.25  # of eps
_MOMENTUM = 0.9


def nes(search: Search, steps: int) -> None:
    """Climb along Gaussian estimates of the gradient, with `steps` scores of each row in all."""
    _climb(search, steps, lambda generator, shape: generator.standard_normal(shape))


def spsa(search: Search, steps: int) -> None:
    """Climb along estimates of the gradient from random signs, with `steps` scores of each row in all."""
    _climb(search, steps, lambda generator, shape: np.sign(generator.uniform(-1.0, 1.0, shape)))


def _climb(
    search: Search, steps: int, draw: Callable[[np.random.Generator, tuple[int, ...]], FloatArray]
) -> None:
    """Move as PGD with a cosine step does, by estimates from `_PAIRS` pairs of scores; the last score is the end's."""
    generators = [search.generator(row, _STREAM) for row in range(len(search.rows))]
    pairs = min(_PAIRS, (steps - 1) // 2)
    points, velocity = search.start, torch.zeros_like(search.start)
    moves = (steps - 1) // (2 * pairs) if pairs else 0
    for size in step_sizes(search.threat.eps, moves, "cosine") if moves else ():
        velocity = _MOMENTUM * velocity
        for _ in range(pairs):
            directions = [draw(generator, tuple(points.shape[1:])) for generator in generators]
            velocity = velocity + _slope(search, points, torch.from_numpy(np.stack(directions)).to(points))
        points = search.threat.project(points + size * search.threat.ascent(velocity), search.clean)
    search.query(points)


def _slope(search: Search, points: Tensor, directions: Tensor) -> Tensor:
    """Return the difference of the scores at both ends of a probe, times the probe (b, c, h, w)."""
    if search.threat.norm == "l2":
        directions = search.threat.ascent(directions)
    probe = _PROBE * search.threat.eps * directions
    ahead, behind = (search.threat.project(points + end, search.clean) for end in (probe, -probe))
    rise = search.query(ahead) - search.query(behind)
    return rise.to(points).view(-1, 1, 1, 1) * (ahead - behind)  # a score may be float64
