"""Ports of two published attacks on classifiers to scalar scores. They are not those attacks, and are not named so.

Both are built on the logits of many classes, of which a score has none: what is left of them without classes is here,
with every change named, so that tables of papers that cite them have something to stand beside. `ensemble` is the
attack to trust.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from diffad.attacks.apgd import adaptive_ascent
from diffad.attacks.features import choose_references
from diffad.attacks.objective import score_gradient
from diffad.attacks.pgd import ascend, step_sizes
from diffad.attacks.search import Search

_STREAM = 21
_ROUND = 25  # gradients of a round of A3: 13 rounds are 325
_INITIAL = 7  # of them along a random direction of the features
_EARLY = 6  # rounds whose last step is eps / 10; later ones end at eps / 1000
_CAA_SHARES = (50 / 200, 25 / 200)  # of the steps: first and second stage; the third has the rest


def a3_port(search: Search, steps: int) -> None:
    """Run rounds of a step towards random features and an ascent, after A3 (Liu et al., CVPR 2022).

    Kept: rounds of direction-adaptive starts, 7 steps of size eps along the gradient of <w, f(x)> with w uniform in
    [-1, 1], then an ascent whose step falls as a cosine from eps to eps / 10 (to eps / 1000 in later rounds).
    Changed: f are `material.features` (pixels without any: the start is then a random corner or pole of the ball),
    not logits, where <w, f> of a single score would be the score itself; the margin loss is the score; w leans on the
    direction that was best so far for the same image instead of on statistics by class; no image is discarded as too
    hard or as done, since an AUROC uses all. Costs `steps` gradients, in rounds of 25, and two scores a round.
    """
    generators = [search.generator(row, _STREAM) for row in range(len(search.rows))]
    with torch.no_grad():
        dimension = _features(search, search.clean[:1]).shape[1]
    best_gains = torch.full_like(search.direction, -torch.inf)
    best_weights = torch.zeros(len(search.rows), dimension).to(search.clean)
    for first in range(0, steps, _ROUND):
        count = min(_ROUND, steps - first)
        initial = min(_INITIAL, count // 2)
        weights = _uniform(generators, dimension).to(search.clean) + best_weights
        points = search.start
        for _ in range(initial):
            points = _towards(search, points, weights, search.threat.eps)
        least = 0.1 if first < _EARLY * _ROUND else 0.001
        sizes = falling_sizes(search.threat.eps, least, count - initial)
        gains = search.query(ascend(search, points, sizes, first + initial))
        better = gains > best_gains
        best_gains = torch.where(better, gains.to(best_gains), best_gains)
        best_weights = torch.where(
            better.view(-1, 1), weights / weights.abs().amax(1, keepdim=True), best_weights
        )


def caa_port(search: Search, steps: int) -> None:
    """Chain three attacks, each from the point of the one before, after CAA (Mao et al., AAAI 2021).

    Kept: the policy of their Linf attack, 50 + 25 + 125 steps at full radius, each stage starting from the perturbation
    of the one before, projected into the one ball. Changed: MultiTargeted on the logits becomes APGD on the score; the
    second target class becomes the features (pixels without any) of the nearest reference on the other side; the
    CW loss, whose hinge stops at a flip, becomes PGD on the score. (Of one name only: the composite attack of Hsiung
    et al., which the Adversarial Robustness Toolbox has, turns hues and rotates.)
    """
    first, second = (max(1, round(share * steps)) for share in _CAA_SHARES)
    points = adaptive_ascent(search, search.start, range(min(first, steps)))
    if steps <= first + second:
        return
    gains = search.query(points)
    with torch.no_grad():
        goal = _features(search, choose_references(search)[0])
    moved = points
    for size in step_sizes(search.threat.eps, second, "cosine"):
        with torch.no_grad():
            left = goal - _features(search, moved)
        moved = _towards(search, moved, left, size)  # the gradient of -|f(x) - goal|^2 / 2
    better = (search.query(moved) > gains).view(-1, 1, 1, 1)
    rest = step_sizes(search.threat.eps, steps - first - second, "cosine")
    ascend(search, torch.where(better, moved, points), rest, first + second)


def falling_sizes(eps: float, least: float, count: int) -> list[float]:
    """Return the lengths of `count` steps, along a cosine from eps down to `least` * eps.

    >>> falling_sizes(1.0, 0.1, 3)
    [1.0, 0.55, 0.1]
    """
    shares = np.linspace(0.0, 1.0, count)
    return [eps * (least + (1.0 - least) * 0.5 * (1.0 + math.cos(math.pi * share))) for share in shares]


def _features(search: Search, images: Tensor) -> Tensor:
    """Return the features (b, d) of images; pixels if the material has none."""
    embed = search.material.features
    return (images if embed is None else embed(images)).flatten(1)


def _towards(search: Search, points: Tensor, weights: Tensor, size: float) -> Tensor:
    """Step by `size` along the gradient of <weights, features>, within the threat; `weights` (b, d)."""
    everywhere = torch.ones_like(search.direction)

    def product(images: Tensor) -> Tensor:
        return (_features(search, images) * weights).sum(1)

    _, gradient = score_gradient(product, points, everywhere, search.count)
    return search.threat.project(points + size * search.threat.ascent(gradient), search.clean)


def _uniform(generators: list[np.random.Generator], dimension: int) -> Tensor:
    """Return uniform draws of [-1, 1] (b, dimension), row by row so that none depends on the batch."""
    return torch.from_numpy(np.stack([generator.uniform(-1, 1, dimension) for generator in generators]))
