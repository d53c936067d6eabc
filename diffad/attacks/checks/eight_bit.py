"""Check that attacked images survive being stored with 8 bits a channel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from diffad.attacks.checks.case import Budget, Case
from diffad.attacks.checks.outcome import CheckOutcome
from diffad.attacks.objective import directions
from diffad.attacks.threat import ThreatModel

_RECOVERY = 0.05


def check_eight_bits(case: Case, budget: Budget) -> CheckOutcome:
    """Round the attacked images to the grid of 1/255: the AUROC may recover by .05 at most.

    value: the recovery with all images attacked. A large one means that the attack lives in digits that no image file
    keeps; the number in a table is still what an attacker on the tensor reaches.
    """
    rounded = eight_bits(case.result.images, case.images, case.threat)
    scores = case.target.scores(rounded, case.names, "evaluate")
    sign = directions(case.labels)
    scores = sign * np.maximum(sign * scores, sign * case.result.clean_scores)
    before = case.aurocs(case.result)["both"]
    after = case.aurocs(replace(case.result, images=rounded, scores=scores))["both"]
    detail = f"recovery of the AUROC (side both) with attacked images of 8 bits a channel: {after:.3f}"
    limit = max(_RECOVERY, case.tolerance)
    return CheckOutcome("eight_bits", after - before <= limit, after - before, detail)


def eight_bits(
    points: Float[Tensor, "n c h w"], clean: Float[Tensor, "n c h w"], threat: ThreatModel
) -> Float[Tensor, "n c h w"]:
    """Return the points on the grid of 1/255, those that rounding carries out of the ball projected back into it.

    A pixel rounds towards its clean value in Linf, so it leaves the ball only where no grid value lies in it.
    """
    levels = points.double() * 255
    towards = levels.round()
    if threat.norm == "linf":
        inwards = levels.floor().where(points > clean, levels.ceil())
        towards = inwards.where((towards / 255 - clean.double()).abs() > threat.eps + 1e-9, towards)
    return threat.project((towards / 255).to(points), clean)
