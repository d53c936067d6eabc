"""Checks along the radius: nothing happens at 0, more is never less, and at the whole box every floor is reached.

After Carlini et al., "On evaluating adversarial robustness" (2019), and Athalye et al. (ICML 2018): unbounded attacks
reach full success, and success grows with the radius.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from certify.types import FloatArray
from diffad.attacks.checks.case import SIDES, Budget, Case
from diffad.attacks.checks.outcome import CheckOutcome
from diffad.attacks.objective import directions
from diffad.attacks.result import AttackResult

_GREYS = 11


def check_eps_zero(case: Case, budget: Budget) -> CheckOutcome:
    """Attack at eps 0 twice: both must give back the clean scores of the result; value: the largest distance.

    What differs is hidden randomness, or clean scores that are not those of this detector. The value is in units of
    the largest clean score; batches of another make-up may differ by 1e-5.
    """
    scale = case.rounding / 1e-5
    known = case.result.clean_scores
    again = [case.attack(eps=0.0, clean_scores=None, seed=seed).scores for seed in (0, 1)]
    worst = max(float(np.abs(scores - known).max()) for scores in again) / scale
    detail = "largest distance of an attack at eps 0 from the clean scores, in units of the largest of these"
    return CheckOutcome("eps_zero", worst <= 1e-5, worst, detail)


def check_eps_sweep(case: Case, budget: Budget) -> CheckOutcome:
    """Attack at smaller and larger radii, each from scratch: no AUROC may rise with eps by more than the tolerance.

    value: the largest rise of the AUROC with normals, anomalies or all images attacked, from one radius to the next
    (`attack_curve` could never fail this, since it keeps the points of the smaller radii).
    """
    own = case.result.eps
    radii = sorted({min(factor * own, case.whole_box) for factor in budget.factors} | {own, case.whole_box})
    found = [case.result if radius == own else case.attack(eps=radius) for radius in radii]
    return sweep_outcome(case, found)


def sweep_outcome(case: Case, results: Sequence[AttackResult]) -> CheckOutcome:
    """Return the outcome of the sweep from results at ascending radii."""
    if len(results) < 2 or any(a.eps > b.eps for a, b in pairwise(results)):
        raise InputError("eps sweep: need results of at least two radii, in ascending order")
    values = [case.aurocs(result) for result in results]
    worst, side = max((b[side] - a[side], side) for a, b in pairwise(values) for side in SIDES)
    radii = ", ".join(f"{result.eps:.3g}" for result in results)
    detail = f"largest rise of an AUROC (side {side}) from one radius to the next: {radii}"
    return CheckOutcome("eps_sweep", worst <= case.tolerance, worst, detail)


def check_floor(case: Case, budget: Budget) -> CheckOutcome:
    """Attack at the radius where every image may be shown: no AUROC may stay above that of the worst known scores.

    Known are the scores of the references, of the images themselves and of flat greys: the attacker may show any of
    them, so an AUROC with normals at the largest and anomalies at the smallest of these is always within reach.
    value: by how much the worst side stays above it. (A gradient attack alone may end in a local extremum somewhat
    below a known score; the detail says how far, in units of their spread.) Of a noisy target an image counts as
    short only by more than its draws can tell (`told_apart`): where many images score nearly alike, an AUROC turns
    on which of them a lucky draw makes the worst.
    """
    result = case.attack(eps=case.whole_box)
    shown = images_shown(case)
    known, sign = known_scores(case, shown), directions(case.labels)
    floor = within_reach(case, shown, known)
    shortfall = float(np.max(sign * (floor - result.scores))) / max(float(np.ptp(known)), 1e-300)
    scores = told_apart(case, result, floor)
    reached, possible = (case.aurocs(replace(result, scores=ends)) for ends in (scores, floor))
    worst, side = max((reached[side] - possible[side], side) for side in SIDES)
    detail = (
        f"AUROC (side {side}) above that of the worst of {len(known)} known scores at {result.norm} {result.eps:g}; "
        f"one image stays {max(shortfall, 0.0):.2g} of their spread short"
    )
    return CheckOutcome("floor", worst <= case.tolerance, worst, detail)


def images_shown(case: Case) -> Tensor:
    """Return what an attacker without a bound might show (m, c, h, w): references, flat greys, the attacked images."""
    known = [greys(case.images), case.images]
    return torch.cat(known if case.references is None else [case.references.to(case.images), *known])


def known_scores(case: Case, shown: Tensor) -> FloatArray:
    """Return the scores (m,) of `images_shown`."""
    # names of their own: of a noisy target these draws are not those of the images
    first, others = max(case.names) + 1, len(shown) - len(case.images)
    scores = case.target.scores(shown[:others], range(first, first + others), "evaluate")
    return np.concatenate([scores, case.result.clean_scores])


def within_reach(case: Case, shown: Tensor, known: FloatArray) -> FloatArray:
    """Return what each image would score (n,) if the worst of the images shown stood in its place.

    Of a noisy target that is scored under the draws of the image that it replaces: the most extreme of many estimates
    is a lucky one, which the same image under other draws does not repeat.
    """
    raised = directions(case.labels) > 0
    if not case.target.noisy:
        extremes: FloatArray = np.where(raised, known.max(), known.min())
        return extremes
    worst = torch.from_numpy(np.where(raised, known.argmax(), known.argmin()))
    return case.target.scores(shown[worst].cpu(), case.names, "evaluate")


def told_apart(case: Case, result: AttackResult, floor: FloatArray) -> FloatArray:
    """Return the scores of a result (n,), the floor where an image falls short of it by no more than noise.

    That is twice the root mean square, over the images of a label, between two estimates of one image: the draws by
    which an attack chooses (`select`) and those by which it is judged.
    """
    if not case.target.noisy:
        return result.scores
    again = case.target.scores(result.images, case.names, "select")
    noise = np.empty(len(again))
    for label in (0, 1):
        where = case.labels == label
        noise[where] = 2 * np.sqrt(np.mean(np.square(again - result.scores)[where]))
    short = directions(case.labels) * (floor - result.scores)
    return np.where((short > 0) & (short <= noise), floor, result.scores)


def greys(like: Tensor) -> Tensor:
    """Return flat images (11, c, h, w) of levels 0 to 1."""
    return torch.linspace(0, 1, _GREYS).to(like).view(-1, 1, 1, 1).expand(-1, *like.shape[1:])
