"""Random noise, the best of many: the attack that every other one has to beat (Carlini et al., 2019)."""

from __future__ import annotations

import numpy as np
import torch

from certify.types import FloatArray
from diffad.attacks.search import Search
from diffad.attacks.threat import ThreatModel

_STREAM = 13


def random_noise(search: Search, steps: int) -> None:
    """Ask for the scores of `steps` random points of the ball around each clean image, and learn nothing from them.

    Every other point is uniform in the ball, the rest has signs of size eps (Linf) or lies on the sphere (L2), where a
    score is usually worst; all are then projected into the box. A score worse than that of a real attack shows that
    the attack has failed. A better one shows nothing: in many dimensions noise is next to orthogonal to any gradient.
    """
    generators = [search.generator(row, _STREAM) for row in range(len(search.rows))]
    shape = search.clean.shape[1:]
    for step in range(steps):
        draw = [_perturbation(search.threat, shape, generator, step % 2 == 1) for generator in generators]
        points = search.clean + torch.from_numpy(np.stack(draw)).to(search.clean)
        search.query(search.threat.project(points, search.clean))


def _perturbation(
    threat: ThreatModel, shape: torch.Size, generator: np.random.Generator, outermost: bool
) -> FloatArray:
    if threat.norm == "linf":
        uniform = generator.uniform(-1.0, 1.0, size=tuple(shape))
        return np.asarray(threat.eps * (np.sign(uniform) if outermost else uniform))
    direction = generator.standard_normal(tuple(shape))
    radius = 1.0 if outermost else generator.uniform() ** (1.0 / direction.size)
    return np.asarray(threat.eps * radius * direction / np.linalg.norm(direction))
