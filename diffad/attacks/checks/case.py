"""What the checks look at: a detector, some of its test images, and the attack on them that may be run again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError, check_images
from certify.metrics import auroc
from certify.sampler import check_indices
from certify.types import FloatArray
from diffad.attacks.attack import as_target, attack
from diffad.attacks.methods import ATTACKS, ENSEMBLES, PRESETS, needs_of
from diffad.attacks.objective import (
    IntArray,
    Objective,
    Rows,
    ScoreObjective,
    check_attack_labels,
    directions,
)
from diffad.attacks.result import AttackResult
from diffad.attacks.search import Material
from diffad.attacks.smoothed import SmoothedTarget
from diffad.attacks.surrogates import named_objective, surrogate_names
from diffad.attacks.target import Target
from diffad.attacks.threat import ThreatModel

SIDES = ("in", "out", "both")
_WIN = 0.01  # a rival wins where it gains this share more than the attack did
_ROUNDING = 1e-5  # of the largest score; batches of different make-up differ by 3e-7


@dataclass(frozen=True)
class Budget:
    """How much the checks may spend: images of each label, steps and draws at most, queries of black boxes.

    None is no limit. `factors` are the radii of the sweep, as multiples of the attack's own.
    """

    name: str
    images: int | None
    steps: int | None
    restarts: int | None
    queries: int
    noise: int
    draws: int | None
    factors: tuple[float, ...]


SMALL = Budget("small", 8, 50, 2, 200, 50, 200, (0.5, 2.0))
FULL = Budget("full", None, None, None, 5000, 500, None, (0.25, 0.5, 2.0, 4.0))
BUDGETS = {"small": SMALL, "full": FULL}


@dataclass(frozen=True)
class Case:
    """A detector, images (n, c, h, w) of both labels, and the result of an attack on them.

    `names` key the noise of the images; `whole` is the result on all images that were attacked, of which these may
    be a part; `settings` are the options of `attack` that repeat it; `references` (m, c, h, w) are further images
    that an attacker might show (train normals), or None.
    """

    detector: Any
    target: Target
    images: Tensor
    labels: IntArray
    names: list[int]
    result: AttackResult
    whole: AttackResult
    settings: dict[str, Any]
    references: Tensor | None = None
    _known: dict[str, AttackResult] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        detector: Any,
        images: Tensor,
        labels: Any,
        result: AttackResult,
        budget: Budget = FULL,
        *,
        indices: Sequence[int] | None = None,
        references: Tensor | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> Case:
        """Take as many images as the budget allows, evenly from each label, and the settings of the attack.

        A noisy target is estimated by no more draws than the budget allows, the attacked images as well as what
        they are compared with.
        """
        check_images(images)
        array = check_attack_labels(labels, len(images))
        if array.min() == array.max():
            raise InputError("labels: got one class only; the checks compare AUROCs, give images of both")
        result.check_continues(ThreatModel(result.norm, result.eps), images, array)
        names = check_indices(range(len(images)) if indices is None else indices, len(images))
        kept = _some_of_each(array, budget.images)
        target = as_target(detector, batch_size, device or images.device)
        part = _part(result, kept)
        if budget.draws is not None and isinstance(target, SmoothedTarget):
            few = min(budget.draws, target.draws)
            target = detector = replace(target, n_eval=few, n_select=min(few, target.n_select))
        chosen = images[torch.from_numpy(kept)].detach().cpu()
        case = cls(
            detector,
            target,
            chosen,
            array[kept],
            [names[row] for row in kept],
            part,
            result,
            {**_repeat(result, target, budget), "batch_size": batch_size, "device": device, **settings},
            references,
        )
        return case._estimated_again() if target.noisy else case

    def _estimated_again(self) -> Case:
        """Replace the scores of a noisy target by those of the draws that the checks use."""
        clean = self.target.scores(self.images, self.names, "evaluate")
        found = self.target.scores(self.result.images, self.names, "evaluate")
        sign = directions(self.labels)
        worse = sign * np.maximum(sign * clean, sign * found)
        return replace(self, result=replace(self.result, scores=worse, clean_scores=clean))

    @property
    def method(self) -> str:
        """The name of the attack's method, in ATTACKS or ENSEMBLES."""
        return str(self.settings["method"])

    @property
    def threat(self) -> ThreatModel:
        """The threat of the attack."""
        return ThreatModel(self.result.norm, self.result.eps)

    @property
    def whole_box(self) -> float:
        """The radius at which every image of the box may be shown: 1 in Linf, its diagonal in L2."""
        return 1.0 if self.result.norm == "linf" else math.sqrt(self.images[0].numel())

    @property
    def by_gradients(self) -> bool:
        """Whether the attack uses gradients."""
        return needs_of(self.method) == "gradients"

    @cached_property
    def rounding(self) -> float:
        """How far two scores of one image may lie apart by the make-up of batches alone."""
        return _ROUNDING * max(1e-30, float(np.abs(self.result.clean_scores).max()))

    def attack(self, **changes: Any) -> AttackResult:
        """Run the attack again with some options changed; what was run before is not run twice.

        But for an objective, which has no name that is sure to be its own.
        """
        options = {"norm": self.result.norm, "eps": self.result.eps, **self.settings, **changes}
        if "clean_scores" not in changes:
            options["clean_scores"] = self.result.clean_scores
        key = repr(sorted(changes.items()))
        if changes.get("objective") is None and key in self._known:
            return self._known[key]
        self._known[key] = attack(self.detector, self.images, self.labels, indices=self.names, **options)
        return self._known[key]

    def rival(self, method: str, steps: int | None = None, **changes: Any) -> AttackResult:
        """Attack at the same radius by another method, once."""
        return self.attack(method=method, steps=steps, restarts=1, objective=None, **changes)

    def gains(self, found: AttackResult) -> FloatArray:
        """Return how far each image was pushed in the attacker's sense (n,)."""
        return np.asarray(directions(self.labels) * (found.scores - self.result.clean_scores))

    def wins(self, rival: FloatArray) -> FloatArray:
        """Return 1.0 for each image where a rival's gains (n,) exceed the attack's by a hundredth and rounding."""
        own = self.gains(self.result)
        return (rival > own + _WIN * np.abs(own) + self.rounding).astype(np.float64)

    def aurocs(self, found: AttackResult) -> dict[str, float]:
        """Return the AUROC with normals, anomalies and all images attacked."""
        calm = type(found.bounds()).exact(found.clean_scores)
        return {side: float(auroc(found.bounds(), self.labels, side, calm)) for side in SIDES}  # type: ignore[arg-type]

    @property
    def tolerance(self) -> float:
        """What two equal AUROCs may differ by: .01, or one pair of images where there are few."""
        anomalies = int(self.labels.sum())
        return max(0.01, 1.0 / (anomalies * (len(self.labels) - anomalies)))

    @cached_property
    def objective(self) -> Objective:
        """What the attack differentiates."""
        given = self.settings["objective"]
        if isinstance(given, Objective):
            return given
        if isinstance(given, str):
            return named_objective(self.target, given, **self.draws)
        if given is not None:
            return ScoreObjective(given, getattr(given, "__name__", "given"), exact=False)
        return self.target.objective(**self.draws)

    @property
    def draws(self) -> dict[str, int]:
        """The arguments of an objective whose draws are those of the attack."""
        steps, eot = self.settings["steps"] or 1, self.settings.get("eot", 16)
        return {"eot": eot, "seed": self.settings["seed"], "first_chunk": 0, "steps": steps}

    @property
    def rows(self) -> Rows:
        """The images as rows of one batch, each in its first restart."""
        return Rows(tuple(self.names), (0,) * len(self.names))


def _some_of_each(labels: IntArray, count: int | None) -> IntArray:
    """Return the positions of at most `count` images of each label, evenly spread, in ascending order."""
    chosen = []
    for label in (0, 1):
        where = np.flatnonzero(labels == label)
        few = len(where) if count is None else min(count, len(where))
        chosen.append(where[np.linspace(0, len(where) - 1, few).round().astype(np.int64)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _part(result: AttackResult, kept: IntArray) -> AttackResult:
    return replace(
        result,
        images=result.images[torch.from_numpy(kept)],
        scores=result.scores[kept],
        clean_scores=result.clean_scores[kept],
        labels=result.labels[kept],
        trace=None if result.trace is None else result.trace[kept],
    )


def _repeat(result: AttackResult, target: Target, budget: Budget) -> dict[str, Any]:
    """Return the options of `attack` that repeat a result, cut to a budget; those that a preset stands for."""
    name, info = str(result.info["attack"]), result.info
    method = PRESETS[name].method if name in PRESETS else name
    steps, restarts = info["steps"], int(info["restarts"])
    if method in ATTACKS and ATTACKS[method].fixed_steps:
        steps = None
    elif budget.steps is not None and (method in ENSEMBLES or needs_of(method) == "gradients"):
        steps = min(int(steps), budget.steps)
    if budget.restarts is not None:
        restarts = min(restarts, budget.restarts)
    options = {"method": method, "steps": steps, "restarts": restarts, "seed": int(info["seed"])}
    surrogate = info.get("objective") if info.get("objective") in surrogate_names(target) else None
    eot = {"eot": int(info["eot"])} if "eot" in info else {}
    return {**options, **eot, "objective": surrogate, "material": Material()}
