"""Checks of the gradient that an attack follows: is there one, and does it point where the score rises?

After Athalye et al., "Obfuscated gradients give a false sense of security" (ICML 2018): shattered, stochastic and
vanishing gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from certify.types import FloatArray
from diffad.attacks.checks.case import Budget, Case
from diffad.attacks.checks.outcome import CheckOutcome, not_applicable
from diffad.attacks.checks.precision import in_float64
from diffad.attacks.methods import ATTACKS
from diffad.attacks.objective import GradientCount, Objective, Rows, evaluate, score_gradient
from diffad.attacks.target import batches

_PROBE_SEED = 1  # directions of the probes; any
_MOST_ZEROS = 0.01
_LEAST_COSINE = 0.9


def check_zero_gradients(case: Case, budget: Budget) -> CheckOutcome:
    """Count gradients that are exactly zero: at most 1 % of those of the attack, and of those at two points an image.

    A zero gradient moves nothing, so an attack that meets many has not looked (rounding, saturation).
    """
    if reason := without_gradients(case):
        return not_applicable("zero_gradients", reason)
    count = GradientCount()
    for points in (
        case.images,
        case.threat.random_start(case.images, case.names, seed=_PROBE_SEED, restart=1),
    ):
        for batch, function in _parts(case, points, case.objective):
            score_gradient(function, batch, torch.ones(len(batch)).to(batch), count)
    shares = [count.zero_share, _zero_share(case.whole.info)]
    detail = "largest share of exactly zero gradients, at the images and a random point of each ball, or in the attack"
    return CheckOutcome("zero_gradients", max(shares) <= _MOST_ZEROS, max(shares), detail)


def check_gradient_direction(case: Case, budget: Budget) -> CheckOutcome:
    """Compare autograd with float64 differences along random directions; value: the smallest cosine of an image.

    A noisy target's objective is compared under one set of draws. A gradient that is approximate by choice (BPDA, a
    straight-through estimate) fails: an attack by it alone proves little.
    """
    if reason := without_gradients(case):
        return not_applicable("gradient_direction", reason)
    try:
        with in_float64((case.objective, case.target)):
            found = [
                gradient_cosines(function, batch)
                for batch, function in _parts(case, case.images.double(), case.objective)
            ]
    except RuntimeError as error:
        if "dtype" not in str(error) and "Double" not in str(error):
            raise
        return not_applicable("gradient_direction", f"the score does not run in float64: {_line(error)}")
    smallest = float(np.concatenate(found).min())
    detail = "smallest cosine of an image between derivatives by autograd and by float64 differences"
    return CheckOutcome("gradient_direction", smallest > _LEAST_COSINE, smallest, detail)


def gradient_cosines(
    score: Callable[[Tensor], Tensor], points: Tensor, *, probes: int = 16, step: float = 1e-5
) -> FloatArray:
    """Return for each point the cosine (n,) between directional derivatives by autograd and by central differences.

    `score` is evaluated in the dtype of `points` (n, c, h, w), float64, where a detector takes images: pixels at 0 and
    1 are moved inwards by `step`, the largest entry of a probe's. An image whose derivatives are all zero both ways
    has cosine 1, and 0 if only one is.
    """
    points = points.clamp(step, 1.0 - step)
    ones = torch.ones(len(points)).to(points)
    _, gradient = score_gradient(score, points, ones, GradientCount())
    generator = np.random.Generator(np.random.Philox(_PROBE_SEED))
    exact, measured = [], []
    for _ in range(probes):
        normal = generator.standard_normal(points.shape)
        probe = torch.from_numpy(normal / np.abs(normal).max()).to(points)
        exact.append((gradient * probe).flatten(1).sum(1))
        ahead, behind = evaluate(score, points + step * probe), evaluate(score, points - step * probe)
        measured.append((ahead - behind) / (2 * step))
    a, b = torch.stack(exact).double(), torch.stack(measured).double()
    norms = a.norm(dim=0) * b.norm(dim=0)
    both_zero = (a.norm(dim=0) == 0) & (b.norm(dim=0) == 0)
    cosine = torch.where(norms > 0, (a * b).sum(0) / norms.clamp_min(1e-300), both_zero.double())
    return np.asarray(cosine.cpu().numpy())


def without_gradients(case: Case) -> str:
    """Return why gradients cannot be looked at: the attack needs none and there are none. Empty if they can."""
    if case.by_gradients:
        return ""
    try:
        for batch, function in _parts(case, case.images[:1], case.objective):
            score_gradient(function, batch, torch.ones(1).to(batch), GradientCount())
    except InputError:
        return f"the score has no gradient, and the attack {case.method!r} needs none"
    return ""


def _parts(
    case: Case, points: Tensor, objective: Objective
) -> Iterator[tuple[Tensor, Callable[[Tensor], Tensor]]]:
    """Yield batches of points on the target's device, with the objective of their rows under the draws of step 0."""
    size = max(1, case.target.batch_size // objective.passes)
    for part in batches(len(points), size):
        rows = Rows(case.rows.names[part], case.rows.restarts[part])
        yield points[part].to(case.target.device), _at_step_zero(objective, rows)


def _at_step_zero(objective: Objective, rows: Rows) -> Callable[[Tensor], Tensor]:
    return lambda images: objective(images, rows, 0)


def _zero_share(info: dict[str, Any]) -> float:
    """The share that an attack has met; of an ensemble the smallest of its members that use gradients.

    A member may start where nothing is left to gain (`feature_target` at an image that scores 0 as a distance), and a
    gradient there is zero by right. One that is masked is zero for every member.
    """
    members = {
        name: one for name, one in info.get("members", {}).items() if ATTACKS[name].needs == "gradients"
    }
    shares = [float(one["zero_gradient_share"]) for one in members.values()]
    return min(shares) if shares else float(info.get("zero_gradient_share", 0.0))


def _line(error: Exception) -> str:
    return str(error).splitlines()[0]
