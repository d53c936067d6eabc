"""What a manifest says of an attack: enough to repeat it, and what its sanity checks found.

    record = attack_record(condition, result, run_checks(...), seconds=12.3)
    manifest = build_manifest("diffad attack", ..., attacks=[record])

`diffad.recorded_checks` finds it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from diffad.attacks.checks import CheckOutcome, failed_mandatory
from diffad.attacks.methods import ATTACKS, PRESETS
from diffad.attacks.objective import directions
from diffad.attacks.result import AttackResult
from diffad.conditions import Condition
from diffad.recorded_checks import ties_of
from diffad.tables import radius_text

_POINTS = 20  # of the trace kept


def attack_record(
    condition: Condition, result: AttackResult, outcomes: Iterable[CheckOutcome], *, seconds: float
) -> dict[str, Any]:
    """Return JSON values: threat, method, budget, what was differentiated and selected, trace and checks.

    `condition` holds the rows of `result`; `seconds` the attack took, its checks left out. Versions, commit, seeds,
    data and the fingerprint of the detector stand in the manifest around it.
    """
    checks = list(outcomes)
    return {
        "eps": radius_text(result.eps, result.norm),
        "convention": "higher score = more anomalous; normal images are raised, anomalous ones lowered",
        "attack_resolution": list(result.images.shape[1:]),
        "step_rule": _step_rule(str(result.info["attack"])),
        "start": _start(result.info),
        "selection": "the worst score of all points visited, image by image, the clean one included",
        "dtype": str(result.images.dtype).removeprefix("torch."),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "images": len(result.labels),
        **result.info,
        **ties_of(condition),  # after the info, whose `resolution` is (channels, height, width)
        "mean_gain": _mean_gain(result),
        "trace": _trace(result),
        "seconds": round(seconds, 1),
        "checks": [outcome.as_dict() for outcome in checks],
        "failed_checks": failed_mandatory(checks) if checks else None,
    }


def _step_rule(name: str) -> str:
    if name in PRESETS:
        return PRESETS[name].source
    return ATTACKS[name].summary if name in ATTACKS else "that of each member"


def _start(info: Mapping[str, Any]) -> dict[str, int]:
    """How many restarts begin at the clean image (or the points of a smaller radius), and how many in the ball."""
    restarts, clean = int(info.get("restarts", 1)), int(not info.get("random_first", False))
    return {"clean": clean, "random": restarts - clean}


def _mean_gain(result: AttackResult) -> float:
    return float(np.mean(directions(result.labels) * (result.scores - result.clean_scores)))


def _trace(result: AttackResult) -> list[float] | None:
    """The mean gain at some steps, the first and the last among them."""
    if result.trace is None:
        return None
    gains = directions(result.labels)[:, None] * (result.trace - result.clean_scores[:, None])
    steps = np.unique(np.linspace(0, gains.shape[1] - 1, _POINTS).round().astype(np.int64))
    return [float(gain) for gain in gains.mean(axis=0)[steps]]
