"""Attack by transfer: points crafted on other detectors, whose gradients are known, and shown to the target.

A target that withstands its own gradients but not those of another detector hides its gradients (check S6).
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor

from certify.types import ScoreFunction
from diffad.attacks.momentum import momentum_ascent
from diffad.attacks.objective import GradientCount, check_eval_mode, score_gradient
from diffad.attacks.search import Search
from diffad.attacks.threat import ThreatModel


def transfer(search: Search, steps: int) -> None:
    """Show the target two points for each source in `material.sources`: FGSM's and the last one of momentum PGD.

    FGSM is kept beside the stronger attack because it often transfers better. The sources score as detectors do,
    higher = more anomalous, and need gradients; of the target two scores a source are asked for. The gradients that
    are counted, and the share of zeros among them, are those of the sources.
    """
    for source in search.material.sources.values():
        clean, start = search.clean, search.start
        for points in crafted(source, search.threat, clean, start, search.direction, steps, search.count):
            search.query(points)


def crafted(
    source: ScoreFunction,
    threat: ThreatModel,
    clean: Float[Tensor, "b c h w"],
    start: Float[Tensor, "b c h w"],
    direction: Float[Tensor, " b"],
    steps: int,
    count: GradientCount,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield FGSM's point of one source, from the clean image, and the last one of its momentum PGD from `start`.

    `direction` (b,) is +1 where the score is to be raised, -1 where lowered; `count` counts the gradients.
    """
    check_eval_mode(source)

    def gradient(points: Tensor, step: int) -> Tensor:
        return score_gradient(source, points, direction, count)[1]

    yield threat.project(clean + threat.eps * threat.ascent(gradient(clean, 0)), clean)
    yield momentum_ascent(gradient, threat, start, clean, steps)
