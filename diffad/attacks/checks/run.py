"""All checks by name, and running them on the result of an attack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_choice
from certify.console import progress
from diffad.attacks.checks.case import BUDGETS, Budget, Case
from diffad.attacks.checks.controls import check_closed_form, check_controls, check_masked_controls
from diffad.attacks.checks.eight_bit import check_eight_bits
from diffad.attacks.checks.gradient import check_gradient_direction, check_zero_gradients
from diffad.attacks.checks.outcome import CheckOutcome
from diffad.attacks.checks.radius import check_eps_sweep, check_eps_zero, check_floor
from diffad.attacks.checks.rivals import (
    check_black_boxes,
    check_doubling,
    check_iteration,
    check_order,
    check_trace,
)
from diffad.attacks.checks.scores import check_batches, check_determinism, check_saturation
from diffad.attacks.checks.shapes import check_shapes
from diffad.attacks.result import AttackResult


@dataclass(frozen=True)
class Check:
    """A check, whether a table withholds a number when it fails, and whether its outcome depends on the radius."""

    run: Callable[[Case, Budget], CheckOutcome]
    mandatory: bool
    each_radius: bool


CHECKS: dict[str, Check] = {
    "eps_zero": Check(check_eps_zero, mandatory=True, each_radius=False),
    "eps_sweep": Check(check_eps_sweep, mandatory=True, each_radius=True),
    "floor": Check(check_floor, mandatory=True, each_radius=False),
    "iteration": Check(check_iteration, mandatory=False, each_radius=True),
    "doubling": Check(check_doubling, mandatory=False, each_radius=True),
    "order": Check(check_order, mandatory=False, each_radius=True),
    "black_boxes": Check(check_black_boxes, mandatory=True, each_radius=True),
    "zero_gradients": Check(check_zero_gradients, mandatory=True, each_radius=True),
    "gradient_direction": Check(check_gradient_direction, mandatory=True, each_radius=False),
    "saturation": Check(check_saturation, mandatory=False, each_radius=False),
    "determinism": Check(check_determinism, mandatory=False, each_radius=False),
    "batches": Check(check_batches, mandatory=True, each_radius=False),
    "controls": Check(check_controls, mandatory=False, each_radius=False),
    "closed_form": Check(check_closed_form, mandatory=False, each_radius=False),
    "masked_controls": Check(check_masked_controls, mandatory=False, each_radius=False),
    "trace": Check(check_trace, mandatory=False, each_radius=True),
    "shapes": Check(check_shapes, mandatory=False, each_radius=True),
    "eight_bits": Check(check_eight_bits, mandatory=False, each_radius=True),
}

MANDATORY = "mandatory"
LEVELS = (MANDATORY, *BUDGETS)


def run_checks(
    detector: Any,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    result: AttackResult,
    budget: str = "small",
    *,
    indices: Sequence[int] | None = None,
    references: Float[Tensor, "m c h w"] | None = None,
    known: Iterable[CheckOutcome] = (),
    only: Sequence[str] | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    **settings: Any,
) -> list[CheckOutcome]:
    """Look for signs that an attack failed rather than that a detector is robust.

    Args:
        detector, images, labels, indices, batch_size, device: as they were given to `attack`, or a target.
        result: what that attack returned, at one radius.
        budget: `small` (8 images of each label, 50 steps, 200 queries) for every evaluation, `mandatory`, of these
            only what a table withholds a number for, or `full` (all images, the attack's own budget, 5000 queries).
        references: (m, c, h, w) images whose scores an attacker at full radius has to reach, normally some train
            normals; the attacked images themselves and flat grey ones are always among them.
        known: outcomes at another radius of the same attack; what does not depend on the radius is taken from them.
        only: names of CHECKS, to run these alone.
        settings: options of `attack` that `result.info` does not hold: `material`, an `objective` of your own.

    Returns the outcomes in the order of CHECKS. Raises InputError for one class only, and for another result.
    """
    check_choice(budget, LEVELS, "checks")
    chosen = BUDGETS["small" if budget == MANDATORY else budget]
    if result.eps == 0:
        raise InputError("checks: got a result at eps 0, which nothing was attacked at; check a larger one")
    for name in only or ():
        check_choice(name, tuple(CHECKS), "only")
    case = Case.of(
        detector,
        images,
        labels,
        result,
        chosen,
        indices=indices,
        references=references,
        batch_size=batch_size,
        device=device,
        **settings,
    )
    old = {outcome.name: outcome for outcome in known}
    outcomes = []
    for name in progress(_asked_for(budget, only), f"{budget} checks"):
        check = CHECKS[name]
        if name in old and not check.each_radius:
            outcomes.append(old[name])
        else:
            outcomes.append(replace(check.run(case, chosen), name=name, mandatory=check.mandatory))
    return outcomes


def _asked_for(budget: str, only: Sequence[str] | None) -> list[str]:
    return [
        name
        for name, check in CHECKS.items()
        if (only is None or name in only) and (budget != MANDATORY or check.mandatory)
    ]
