"""Several attacks in one: for each image the worst point that any of them has found.

The methods fail in different ways (a step size that halves too early, a fixed schedule that misses a ridge, a start in
the wrong valley, a gradient that is masked), so that what all of them miss is more likely not there. This is no
AutoAttack: that is a protocol for classifiers, whose losses and early stops a score does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from diffad.attacks.methods import member_steps
from diffad.attacks.objective import directions
from diffad.attacks.result import AttackResult, keep_worse


def run_members(
    attack: Callable[..., AttackResult],
    name: str,
    steps: int,
    previous: AttackResult | None,
    clean_scores: Any,
) -> AttackResult:
    """Run each member as it would run alone, and merge what they find.

    Args:
        attack: takes `method`, `steps`, `previous` and `clean_scores` by keyword.
        name, steps: of ENSEMBLES, and its gradient steps; a member without gradients has ten queries for each.
        previous: a result at a smaller eps, from which every member goes on.
        clean_scores: (n,) known clean scores; None: those of the first member serve all.
    """
    results: dict[str, AttackResult] = {}
    for method, own in member_steps(name, steps).items():
        results[method] = attack(method=method, steps=own, previous=previous, clean_scores=clean_scores)
        clean_scores = results[method].clean_scores
    merged = merge(name, results)
    return replace(merged, info={**merged.info, "steps": steps})


def merge(name: str, results: dict[str, AttackResult]) -> AttackResult:
    """Return for each image the worst of all results, the first of equal ones; none of them is below it.

    Reported scores are compared, those of a noisy target under the one evaluation key that all share. `trace` holds
    the histories one after the other.
    """
    first, *others = results.values()
    images, scores = first.images, first.scores
    for other in others:
        images, scores = keep_worse(first.labels, (images, scores), (other.images, other.scores))
    return replace(
        first,
        images=images,
        scores=scores,
        info=_merge_info(name, results),
        trace=_merge_traces(list(results.values())),
        members={method: result.scores for method, result in results.items()},
    )


def _merge_info(name: str, results: dict[str, AttackResult]) -> dict[str, Any]:
    """Return what the members have in common, the sum of their costs, and each one's own info under `members`."""
    infos = {method: result.info for method, result in results.items()}
    gradients = [info["gradient_evaluations"] for info in infos.values()]
    zeros = [share["zero_gradient_share"] for share in infos.values()]
    first = next(iter(infos.values()))
    merged = first | {
        "attack": name,
        "gradient_evaluations": sum(gradients),
        "score_queries": sum(info["score_queries"] for info in infos.values()),
        "zero_gradient_share": float(np.average(zeros, weights=gradients)) if sum(gradients) else 0.0,
        "recomputed_gap": max(info["recomputed_gap"] for info in infos.values()),
        "decided_by": _winners(results),
        "members": infos,
    }
    if "noise_chunks" in first:
        merged["noise_chunks"] = max(info["noise_chunks"] for info in infos.values())
    return merged


def _winners(results: dict[str, AttackResult]) -> dict[str, int]:
    """Return for how many images each method is the first to reach the worst score."""
    first = next(iter(results.values()))
    gains = np.stack([directions(first.labels) * result.scores for result in results.values()])
    counts = np.bincount(gains.argmax(axis=0), minlength=len(results))
    return dict(zip(results, counts.tolist(), strict=True))


def _merge_traces(results: Sequence[AttackResult]) -> Any:
    """Return the histories one after the other, (n, t); of exact scores the worst so far of all members."""
    traces = [result.trace for result in results if result.trace is not None]
    if not traces:
        return None
    signs = directions(results[0].labels)[:, None]
    gains = np.concatenate([signs * trace for trace in traces], axis=1)
    noisy = "noise_chunks" in results[0].info
    return signs * (gains if noisy else np.maximum.accumulate(gains, axis=1))
