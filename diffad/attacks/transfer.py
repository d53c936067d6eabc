"""Attack by transfer: points crafted on other detectors, whose gradients are known, and shown to the target.

A target that withstands its own gradients but not those of another detector hides its gradients (check S6).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from certify.types import ScoreFunction
from diffad.attacks.momentum import momentum_ascent
from diffad.attacks.objective import check_eval_mode, score_gradient
from diffad.attacks.search import Search


def transfer(search: Search, steps: int) -> None:
    """Show the target two points for each source in `material.sources`: FGSM's and the last one of momentum PGD.

    FGSM is kept beside the stronger attack because it often transfers better. The sources score as detectors do,
    higher = more anomalous, and need gradients; of the target two scores a source are asked for. The gradients that
    are counted, and the share of zeros among them, are those of the sources.
    """
    for source in search.material.sources.values():
        check_eval_mode(source)
        gradient = partial(_source_gradient, search, source)
        step = search.threat.eps * search.threat.ascent(gradient(search.clean, 0))
        search.query(search.threat.project(search.clean + step, search.clean))
        search.query(momentum_ascent(gradient, search.threat, search.start, search.clean, steps))


def _source_gradient(search: Search, source: ScoreFunction, points: Tensor, step: int) -> Tensor:
    return score_gradient(source, points, search.direction, search.count)[1]
