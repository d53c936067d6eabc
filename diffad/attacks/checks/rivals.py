"""Checks against rivals that should lose: one step, random noise, black boxes, transferred images, more steps.

An attack by gradients that loses to anything here was held up by masked gradients or stopped too early (Athalye et al.,
ICML 2018; Carlini et al., 2019; Tramer et al., NeurIPS 2020).
"""

from __future__ import annotations

import numpy as np

from diffad.attacks.checks.case import SIDES, Budget, Case
from diffad.attacks.checks.gradient import without_gradients
from diffad.attacks.checks.outcome import CheckOutcome, not_applicable
from diffad.attacks.methods import ATTACKS, ENSEMBLES

_MOST_WINS = 0.05
_LEAST_LEAD = 0.05  # of the attack's mean gain
# by name in ATTACKS; the larger budget adds the slower ones
RIVALS = {"small": ("noise", "square"), "full": ("noise", "square", "simba", "simba_dct", "nes")}


def check_iteration(case: Case, budget: Budget) -> CheckOutcome:
    """Compare with a single step: it may win on at most 5 % of the images; value: on how many it does."""
    if reason := without_gradients(case):
        return not_applicable("iteration", reason)
    share = float(case.wins(case.gains(case.rival("fgsm"))).mean())
    detail = "share of images where a single step beats the attack by more than a hundredth of its gain"
    return CheckOutcome("iteration", share <= _MOST_WINS, share, detail)


def check_doubling(case: Case, budget: Budget) -> CheckOutcome:
    """Double the effort: no AUROC may change by more than the tolerance; value: the largest change.

    The full budget doubles steps and restarts; the small one looks at the last doubling, from half the steps to the
    attack's own, or from its own limits where these are less. An attack that doubling makes stronger had not
    converged; one that it makes weaker is a matter of luck. A single step has its restarts doubled.
    """
    steps, restarts = int(case.result.info["steps"]), int(case.result.info["restarts"])
    fixed = steps == 1 or (case.method in ATTACKS and ATTACKS[case.method].fixed_steps)
    if fixed:
        other = {"restarts": 2 * restarts}
    elif budget.steps is None:
        other = {"steps": 2 * steps, "restarts": 2 * restarts}
    else:
        fewer = steps // 2
        if case.by_gradients:
            fewer = min(fewer, budget.steps)
        other = {"steps": fewer, "restarts": min(restarts, budget.restarts or restarts)}
    before, after = case.aurocs(case.result), case.aurocs(case.attack(**other))
    worst, side = max((abs(before[side] - after[side]), side) for side in SIDES)
    words = " and ".join(f"{value} {name}" for name, value in other.items())
    detail = f"change of an AUROC (side {side}) between {steps} steps and {restarts} restarts, and {words}"
    return CheckOutcome("doubling", worst <= case.tolerance, worst, detail)


def check_order(case: Case, budget: Budget) -> CheckOutcome:
    """Order mean gains: random points < one step < the attack; value: the largest breach, as a share of its gain.

    The best of many random points may come near a single step that overshoots, so a breach of 5 % passes.
    """
    if reason := without_gradients(case):
        return not_applicable("order", reason)
    ladder = [case.rival("noise", budget.noise), case.rival("fgsm"), case.result]
    means = [float(case.gains(one).mean()) for one in ladder]
    breach = max(means[0] - means[1], means[1] - means[2], means[0] - means[2])
    value = breach / max(abs(means[2]), case.rounding)
    detail = "breach of the order random points, one step, attack, in units of the attack's mean gain; gains "
    detail += ", ".join(f"{mean:.3g}" for mean in means)
    return CheckOutcome("order", value <= _LEAST_LEAD, value, detail)


def check_black_boxes(case: Case, budget: Budget) -> CheckOutcome:
    """Attack by scores alone, and from the sources given: they may win on at most 5 % of the images.

    value: the share of images where any of them beats the attack by more than a hundredth of its gain.
    """
    if not case.by_gradients:
        return not_applicable("black_boxes", f"the attack {case.method!r} itself uses scores alone")
    names = [name for name in RIVALS[budget.name] if case.result.norm in ATTACKS[name].norms]
    steps: dict[str, int | None] = {
        name: budget.noise if name == "noise" else budget.queries for name in names
    }
    if case.settings["material"].sources:
        steps["transfer"] = None
    wins = {name: case.wins(case.gains(case.rival(name, count))) for name, count in steps.items()}
    share = float(np.max(list(wins.values()), axis=0).mean())
    by_name = ", ".join(f"{name} {float(won.mean()):.2g}" for name, won in wins.items())
    detail = f"share of images where an attack without gradients wins ({by_name})"
    return CheckOutcome("black_boxes", share <= _MOST_WINS, share, detail)


def check_trace(case: Case, budget: Budget) -> CheckOutcome:
    """Follow the mean gain over the steps: it rises, and no more than a tenth of it comes in the last tenth.

    value: the share of the last tenth. Of a noisy target the gains are estimates, so tenths are averaged.
    """
    trace = case.result.trace
    if trace is None or trace.shape[1] < 10:
        return not_applicable("trace", "the attack has fewer than ten steps on record")
    if case.method in ENSEMBLES:
        return not_applicable("trace", "an ensemble has the traces of its members one after the other")
    gains = np.where(case.labels == 0, 1.0, -1.0)[:, None] * trace
    tenths = np.array([float(part.mean()) for part in np.array_split(gains.mean(axis=0), 10)])
    curve = tenths if case.target.noisy else gains.mean(axis=0)
    risen = float(curve[-1] - curve[0])
    late = float(tenths[-1] - tenths[-2])
    value = late / risen if risen > 0 else 1.0
    detail = "share of the mean gain that came in the last tenth of the steps"
    return CheckOutcome("trace", risen > 0 and value <= 0.1, value, detail)
