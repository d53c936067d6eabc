"""`attack`: the one entry to every attack on a score.

    result = attack(detector.score, images, labels, norm="linf", eps="8/255", method="apgd", restarts=5)
    result = attack(smoothed, images, labels, norm="l2", eps=0.25, eot=16)       # what `certify` speaks of

A threat (`ThreatModel`), an objective (what is differentiated) and an optimiser (`ATTACKS`) are put together; the
target (what is reported) judges the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_choice, check_images
from certify.sampler import check_indices
from certify.smoothed_sum import SmoothedSum
from certify.smoothing import SmoothedDetector
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.ensemble import run_members
from diffad.attacks.features import complete_references
from diffad.attacks.job import Found, Job, target_identity
from diffad.attacks.methods import ATTACKS, ENSEMBLE_STEPS, ENSEMBLES, find_preset
from diffad.attacks.objective import (
    IntArray,
    Objective,
    ScoreObjective,
    check_attack_labels,
    directions,
)
from diffad.attacks.pgd import SCHEDULES
from diffad.attacks.result import AttackResult, keep_worse
from diffad.attacks.search import Material
from diffad.attacks.store import AttackStore, collect, digest
from diffad.attacks.target import ScoreTarget, Target, batches
from diffad.attacks.threat import Radius, ThreatModel

# Images of a noisy target whose reported scores are one piece of work for a store.
EVALUATED_TOGETHER = 8


def as_target(
    detector: Any, batch_size: int | None = None, device: str | torch.device | None = None
) -> Target:
    """Return the target of a detector: itself if it is one, the percentile of a smoothed one, else its score."""
    from diffad.attacks.smoothed import SmoothedTarget  # which builds on this module

    if isinstance(detector, SmoothedDetector | SmoothedSum):
        return SmoothedTarget(detector)
    if isinstance(detector, Target):
        return detector
    score = detector.score if callable(getattr(detector, "score", None)) else detector
    if not callable(score):
        raise InputError(f"detector: {type(detector).__name__} has no score(images) and is not callable")
    return ScoreTarget(score, 64 if batch_size is None else batch_size, device or "cpu")


def attack(
    detector: Any,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    *,
    norm: str,
    eps: Radius,
    method: str = "pgd",
    steps: int | None = None,
    restarts: int = 1,
    eot: int = 16,
    seed: int = 0,
    objective: Objective | ScoreFunction | str | None = None,
    indices: Sequence[int] | None = None,
    previous: AttackResult | None = None,
    material: Material | None = None,
    clean_scores: FloatArray | None = None,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    store: AttackStore | None = None,
) -> AttackResult:
    """Raise the scores of normal images and lower those of anomalies within a ball; the worst of each image.

    Args:
        detector: a `Detector`, any `score(images) -> (b,)` with higher = more anomalous, a
            `certify.SmoothedDetector` or `SmoothedSum`, or a `Target` of its own.
        images: (n, c, h, w) in [0, 1]; `labels` (n,) 0 normal, 1 anomalous; `indices` name them (default 0, 1, ...)
            and key all randomness.
        norm, eps: the threat, eps in [0, 1] pixel units of these images, or text such as "8/255".
        method: a name of ATTACKS, ENSEMBLES or PRESETS; `steps` gradient steps, or queries of a method without
            gradients (None: those of the method). In an ensemble such a member has ten queries a step.
        restarts: the first starts at the clean image or at the points of `previous`, a result at a smaller eps,
            whose points stay candidates; the others at random points.
        eot: fresh draws of the noise a step, where there is noise.
        objective: what to differentiate instead of the target: the name of a surrogate that the detector offers
            (`attacks.surrogates`), a function of images, or an `Objective`. What it finds is judged by the target.
        material: what the attacker knows beside the detector: other images to start from (default: the attacked
            ones), features, the sources of a transfer.
        clean_scores: (n,) known clean scores of this very target, to save their evaluation.
        batch_size, device: of a plain score; a smoothed detector has its own (`batch_size` noisy images, that is
            batch_size / eot images).
        store: keeps finished batches, so that an attack that was interrupted goes on, and shares them between
            processes; the result is the same.

    Every point visited is a candidate, the clean image included, for each image by itself. The reported scores come
    from a fresh pass; of a noisy target from draws that neither the attack nor a certificate uses, the same for
    clean and attacked images, and the worse of the two is kept.
    Raises InputError for inputs out of range, a method that cannot be used here, or a score that is not finite.
    """
    if method in ENSEMBLES:
        member = partial(
            attack,
            detector,
            images,
            labels,
            norm=norm,
            eps=eps,
            restarts=restarts,
            eot=eot,
            seed=seed,
            objective=objective,
            indices=indices,
            material=material,
            batch_size=batch_size,
            device=device,
            store=store,
        )
        return run_members(member, method, ENSEMBLE_STEPS if steps is None else steps, previous, clean_scores)
    threat, preset = ThreatModel.parse(norm, eps), find_preset(method, steps, restarts)
    target = as_target(detector, batch_size, device or images.device)
    check_images(images)
    label_array = check_attack_labels(labels, len(images))
    names = check_indices(range(len(images)) if indices is None else indices, len(images))
    material = material or Material()
    _check_method(preset.method, threat, material)
    if eot < 1:
        raise InputError(f"eot: got {eot}, need at least 1")
    if previous is not None:
        previous.check_continues(threat, images, label_array)
        previous.check_target(target, images, names)
    clean, chunk = images.detach().cpu(), 0
    if previous is not None:
        clean_scores, best = previous.clean_scores, (previous.images, previous.scores)
        chunk = int(previous.info.get("noise_chunks", 0))
    else:
        if clean_scores is None:
            clean_scores = _evaluate(target, clean, names, store)
        best = (clean, clean_scores)
    if "references" in ATTACKS[preset.method].material:
        material = complete_references(material, target, clean, clean_scores)
    job = Job(target, threat, preset, clean, best[0], names, label_array, seed, eot, chunk, material)
    chosen = _objective(objective, target, job)
    found = job.run(chosen, target.batch_size if batch_size is None else batch_size, store)
    found = replace(found, points=threat.inside(found.points, clean))
    best, gap = _judge(target, best, clean, clean_scores, found, names, label_array, store)
    threat.check(best[0], clean)
    info: dict[str, Any] = {
        "attack": method,
        "objective": chosen.name,
        "steps": preset.steps,
        "restarts": preset.restarts,
        "random_first": preset.random_first,
        "seed": seed,
        "resolution": list(images.shape[1:]),
        "gradient_evaluations": found.count.gradients * chosen.passes,
        "score_queries": found.count.queries,
        "zero_gradient_share": found.count.zero_share,
        "recomputed_gap": gap,
        **({"eot": eot, "noise_chunks": chunk + preset.restarts * preset.steps} if target.noisy else {}),
        **target.describe(),
    }
    return AttackResult(
        best[0],
        best[1],
        clean_scores,
        label_array,
        threat.norm,
        threat.eps,
        info,
        found.scores_on_the_way(label_array),
    )


def pgd(
    score: ScoreFunction,
    images: Float[Tensor, "n c h w"],
    labels: Any,
    *,
    schedule: str = "cosine",
    **options: Any,
) -> AttackResult:
    """Attack a plain score by projected gradient ascent: `attack` with the method of a schedule's name."""
    check_choice(schedule, SCHEDULES, "schedule")
    method = "pgd" if schedule == "cosine" else "pgd_constant"
    return attack(score, images, labels, method=method, **{"steps": 50, **options})


def attack_curve(attack: Callable[..., AttackResult], radii: Sequence[Radius]) -> list[AttackResult]:
    """Attack at ascending radii, each from the points found at the one before.

    `attack` takes `eps` and `previous` by keyword: `partial(attack, detector, images, labels, norm="l2")`.
    A point found at a small radius is a candidate at every larger one, so no score improves with the radius.
    """
    results: list[AttackResult] = []
    for eps in radii:
        results.append(attack(eps=eps, previous=results[-1] if results else None))
    return results


def _check_method(name: str, threat: ThreatModel, material: Material) -> None:
    method = ATTACKS[name]
    if threat.norm not in method.norms:
        raise InputError(f"method {name!r}: works in {', '.join(method.norms)}, got {threat.norm}")
    if "sources" in method.material and not material.sources:
        raise InputError(
            f"method {name!r}: needs other detectors, give material=Material(sources={{name: score}})"
        )


def _objective(given: Objective | ScoreFunction | str | None, target: Target, job: Job) -> Objective:
    draws = {
        "eot": job.eot,
        "seed": job.seed,
        "first_chunk": job.first_chunk,
        "steps": job.preset.steps,
    }
    if given is None:
        return target.objective(**draws)
    if isinstance(given, str):
        from diffad.attacks.surrogates import named_objective  # which builds on this module

        return named_objective(target, given, **draws)
    if isinstance(given, Objective):
        return given
    return ScoreObjective(given, getattr(given, "__name__", type(given).__name__), exact=False)


def _judge(
    target: Target,
    known: tuple[Tensor, FloatArray],
    clean: Tensor,
    clean_scores: FloatArray,
    found: Found,
    names: list[int],
    labels: IntArray,
    store: AttackStore | None,
) -> tuple[tuple[Tensor, FloatArray], float]:
    """Return the worse of what was known and what was found, by fresh scores, and how far these lie from the search's.

    Above rounding, such a gap of a deterministic score means hidden randomness, or images of a batch that are coupled.
    """
    moved = (found.points != known[0]).flatten(1).any(1).numpy()
    scores = known[1].copy()
    if target.noisy:
        if moved.any():
            where = np.flatnonzero(moved)
            scores[moved] = _evaluate(target, found.points[moved], [names[row] for row in where], store)
        return keep_worse(labels, known, (found.points, scores)), 0.0
    fresh = _evaluate(target, found.points, names, store)
    unmoved = (found.points == clean).flatten(1).all(1).numpy()
    fresh = np.where(unmoved, clean_scores, fresh)  # the same image: no rounding of another batch
    gap = float(np.abs(fresh - directions(labels) * found.gains).max())
    return keep_worse(labels, keep_worse(labels, (clean, clean_scores), known), (found.points, fresh)), gap


def _evaluate(target: Target, images: Tensor, names: list[int], store: AttackStore | None) -> FloatArray:
    """Return the reported scores; of a noisy target, which draws many for each image, a few images at a time."""
    if not target.noisy:
        return target.scores(images, names, "evaluate")
    groups = list(batches(len(images), EVALUATED_TOGETHER))
    options = {"target": target_identity(target), "images": [digest(images), names], "purpose": "evaluate"}
    parts = collect(
        store,
        options,
        len(groups),
        lambda place: {
            "scores": torch.from_numpy(target.scores(images[groups[place]], names[groups[place]], "evaluate"))
        },
        "evaluate",
    )
    return torch.cat([part["scores"] for part in parts]).numpy()
