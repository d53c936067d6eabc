"""Objectives by name: `attack(detector, ..., objective="soft_map")`.

A detector names its surrogates (`Detector.surrogates`), a purifier its processes (`diffad.attacks.gradients`). For each
target the surrogate stands in the place of the score: under fresh draws, or inside the percentile.

| target           | what is differentiated instead                                                       |
|------------------|--------------------------------------------------------------------------------------|
| `ScoreTarget`    | the surrogate of the images                                                          |
| `RandomTarget`   | its mean over `eot` fresh draws                                                      |
| `SmoothedTarget` | the soft percentile of the surrogate under the noise: of A, of S(x, R) or of R alone |
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from certify.checks import InputError
from certify.pool import NoisyScore
from certify.smoothed_sum import SmoothedSum
from certify.smoothing import SmoothedDetector
from certify.sure import sure_score
from certify.types import ScoreFunction
from certify.ways import behind, score_function
from diffad.attacks.gradients import Reconstruct, processes_of
from diffad.attacks.objective import Objective, Rows, ScoreObjective
from diffad.attacks.random import RandomTarget
from diffad.attacks.smoothed import SmoothedTarget
from diffad.attacks.target import ScoreTarget, Target


@dataclass(frozen=True)
class NamedObjective:
    """An objective under the name of the surrogate in it; never the reported score."""

    objective: Objective
    name: str
    exact: ClassVar[bool] = False

    @property
    def passes(self) -> int:
        """Those of the objective."""
        return self.objective.passes

    def __call__(self, points: Tensor, rows: Rows, step: int) -> Tensor:
        """Return its values (b,)."""
        return self.objective(points, rows, step)


def named_objective(target: Target, name: str, **draws: int) -> Objective:
    """Return the objective of a target with the surrogate `name` in the place of its score.

    `draws` are the arguments of `Target.objective`. Raises InputError for a name that the detector does not offer.
    """
    if isinstance(target, ScoreTarget):
        owner = getattr(target.score, "__self__", target.score)
        return ScoreObjective(_chosen(_surrogates(owner), name, owner), name, exact=False)
    if isinstance(target, RandomTarget):
        surrogate = _chosen(_surrogates(target.detector), name, target.detector)
        return NamedObjective(replace(target, detector=surrogate).objective(**draws), name)
    if isinstance(target, SmoothedTarget):
        changed = replace(target, smoothed=_with_surrogate(target.smoothed, name))
        return NamedObjective(changed.objective(**draws), name)
    raise InputError(f"objective: {type(target).__name__} has no surrogates by name; give an Objective")


def surrogate_names(target: Target) -> tuple[str, ...]:
    """Return the names that `named_objective` takes for a target."""
    if isinstance(target, SmoothedTarget):
        smoothed = target.smoothed
        return tuple(_bases(smoothed.levels[0] if isinstance(smoothed, SmoothedSum) else smoothed))
    if isinstance(target, RandomTarget):
        return tuple(_surrogates(target.detector))
    return (
        tuple(_surrogates(getattr(target.score, "__self__", target.score)))
        if isinstance(target, ScoreTarget)
        else ()
    )


def _surrogates(detector: Any) -> dict[str, Any]:
    offered = getattr(detector, "surrogates", None)
    return offered() if callable(offered) else {}


def _chosen(offered: dict[str, Any], name: str, owner: Any) -> Any:
    if name not in offered:
        words = f"offers {', '.join(offered)}" if offered else "offers none"
        raise InputError(
            f"objective: got {name!r}, {type(owner).__name__} {words}; leave it out for the score"
        )
    return offered[name]


def _with_surrogate(smoothed: SmoothedDetector | SmoothedSum, name: str) -> SmoothedDetector | SmoothedSum:
    """Return the smoothed detector with another score under its noise; at a sum each level."""
    changed = copy.copy(smoothed)
    if isinstance(changed, SmoothedSum):
        changed.levels = tuple(_level(level, name) for level in changed.levels)
        return changed
    return _level(changed, name)


def _level(level: SmoothedDetector, name: str) -> SmoothedDetector:
    changed = copy.copy(level)
    changed.base = _chosen(_bases(level), name, level.detector)
    return changed


def _bases(level: SmoothedDetector) -> dict[str, NoisyScore]:
    """Return the scores of (clean, noisy) that stand in for `level.base`, by name (see `certify.ways`)."""
    detector, way, sigma = level.detector, level.smoothing, level.sigma
    if sigma is None:
        raise InputError("smoothing 'none' has no noise: attack the detector's score")
    scores = _surrogates(detector)
    if way == "input":
        return {name: partial(_input, score_function(one)) for name, one in scores.items()}
    purifier = detector if level.purifier is None else level.purifier
    processes = processes_of(purifier, residual=way != "denoise")
    if way == "sure":
        return {name: partial(_sure, one, sigma) for name, one in processes.items()}
    combine: Callable[..., Tensor] = _denoise if way == "denoise" else _reference
    if way == "denoise":
        scorer = behind(detector, level.purifier)
        own = score_function(scorer)
        stand_ins = {name: score_function(one) for name, one in _surrogates(scorer).items()}
    else:
        own = detector.score_pair
        stand_ins = {name: one.score_pair for name, one in scores.items() if hasattr(one, "score_pair")}
    return {
        **{name: partial(combine, one, purifier.reconstruct, sigma) for name, one in stand_ins.items()},
        **{name: partial(combine, own, one, sigma) for name, one in processes.items()},
    }


def _input(score: ScoreFunction, clean: Tensor, noisy: Tensor) -> Tensor:
    return score(noisy)


def _denoise(
    score: ScoreFunction, reconstruct: Reconstruct, sigma: float, clean: Tensor, noisy: Tensor
) -> Tensor:
    return score(reconstruct(noisy, sigma))


def _reference(
    pair: Callable[[Tensor, Tensor], Tensor],
    reconstruct: Reconstruct,
    sigma: float,
    clean: Tensor,
    noisy: Tensor,
) -> Tensor:
    return pair(clean.expand_as(noisy), reconstruct(noisy, sigma))


def _sure(reconstruct: Reconstruct, sigma: float, clean: Tensor, noisy: Tensor) -> Tensor:
    return sure_score(reconstruct, noisy, sigma)
