"""Check that the shape of what is differentiated makes no difference: score, logarithm, logit, and surrogates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from diffad.attacks.checks.case import Budget, Case
from diffad.attacks.checks.gradient import without_gradients
from diffad.attacks.checks.outcome import CheckOutcome, not_applicable
from diffad.attacks.objective import Objective, Rows
from diffad.attacks.surrogates import named_objective, surrogate_names

_MORE = 0.01


class Shaped:
    """An objective behind an increasing function of its values: other gradients, the same best points."""

    exact = False

    def __init__(self, objective: Objective, shape: Callable[[Tensor], Tensor], name: str) -> None:
        self.objective, self.shape, self.name = objective, shape, name

    @property
    def passes(self) -> int:
        """Those of the objective."""
        return self.objective.passes

    def __call__(self, points: Tensor, rows: Rows, step: int) -> Tensor:
        """Return the shaped values (b,)."""
        return self.shape(self.objective(points, rows, step))


def check_shapes(case: Case, budget: Budget) -> CheckOutcome:
    """Attack again by other shapes of the score, and by the detector's surrogates: none may reach 1 % more.

    value: how much more the best of them gains in the mean, as a share of the attack's gain. It catches an attack
    that follows a poor surrogate, or a loss that saturates. (An increasing function of a deterministic score leaves
    each step where it was, as long as it has digits left.)
    """
    if reason := without_gradients(case):
        return not_applicable("shapes", reason)
    own = float(case.gains(case.result).mean())
    tried = _objectives(case, budget)
    means = {one.name: float(case.gains(case.attack(objective=one)).mean()) for one in tried}
    best = max(means, key=lambda name: means[name])
    value = (means[best] - own) / max(abs(own), case.rounding)
    detail = (
        f"how much more the best of {', '.join(means)} gains ({best}), in units of the attack's mean gain"
    )
    return CheckOutcome("shapes", value <= _MORE, value, detail)


def _objectives(case: Case, budget: Budget) -> Iterator[Objective]:
    """Yield the score itself where the attack follows something else, its shapes, and the surrogates by name."""
    score = case.target.objective(**case.draws)
    centre, spread = float(np.median(case.result.clean_scores)), float(np.std(case.result.clean_scores))
    if case.settings["objective"] is not None:
        yield Shaped(score, torch.nn.Identity(), "score")
    names = [name for name in surrogate_names(case.target) if name != case.settings["objective"]]
    # an increasing function makes a difference under noise or by rounding only: the small budget has others first
    if case.target.noisy or budget.steps is None or not names:
        yield Shaped(score, partial(_log, centre=centre, spread=max(spread, case.rounding)), "log")
    within = case.result.clean_scores.min() > 0 and case.result.clean_scores.max() < 1
    if within and budget.steps is None:
        yield Shaped(score, _logit, "logit")
    for name in names:
        yield named_objective(case.target, name, **case.draws)


def _log(values: Tensor, centre: float, spread: float) -> Tensor:
    """A logarithm to both sides of the middle score: asinh."""
    return torch.asinh((values - centre) / spread)


def _logit(values: Tensor) -> Tensor:
    return torch.logit(values, eps=torch.finfo(values.dtype).eps)
