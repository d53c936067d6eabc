"""From a detector and a data set to attacked conditions; `diffad attack` is this with options and files around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from certify.smoothed_sum import SmoothedSum
from certify.smoothing import SmoothedDetector
from certify.types import FloatArray, ScoreBounds, ScoreFunction
from diffad.attacks import AttackResult, Material, RandomTarget, attack, attack_curve, attack_smoothed
from diffad.attacks.result import keep_worse
from diffad.attacks.store import AttackStore
from diffad.conditions import Condition, TestedImages, attack_condition, clean_condition
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.levels import smooth_levels
from diffad.plan import Plan, smooth, subject_of

REFERENCES = 1000  # train normals, at most, that an attack on a plain score may start from
NOISY_REFERENCES = (
    50  # of a score under noise, each of whose values takes many draws; the checks show as many
)


@dataclass(frozen=True)
class AttackOptions:
    """Threat, method and budget of an attack, as `diffad.attacks.attack` takes them; radii in any order."""

    norm: str
    radii: Sequence[float]
    method: str = "pgd"
    objective: str | None = None
    steps: int | None = None
    restarts: int = 1
    eot: int = 16
    seed: int = 0
    sources: dict[str, ScoreFunction] = field(default_factory=dict)
    fresh_draws: int | None = None
    """Of a detector with noise of its own: report the mean over so many fresh draws, not the stored ones."""

    @property
    def name(self) -> str:
        """The attack as rows name it: the method, with the function that it followed if that is not the score."""
        return self.method if self.objective is None else f"{self.method} on {self.objective}"

    @property
    def ascending(self) -> list[float]:
        """The radii above 0, each once, the smallest first."""
        return sorted({float(radius) for radius in self.radii if radius > 0})


@dataclass(frozen=True)
class Reached:
    """What an attack reached at one radius: its result, and the clean scores (n,) and bounds that are recorded."""

    found: AttackResult
    clean: FloatArray
    bounds: ScoreBounds
    seconds: float


def attack_split(
    detector: Detector, split: DataSplit, plan: Plan, *, purifier: Any = None, **options: Any
) -> list[Condition]:
    """Attack what the plan would certify: the conditions of `attack_detector`; `options` of `AttackOptions`."""
    chosen = AttackOptions(**options)
    reached = attack_detector(detector, split, plan, chosen, purifier=purifier)
    return conditions_of(detector, split, plan, chosen, reached)


def attack_detector(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    options: AttackOptions,
    *,
    purifier: Any = None,
    store: AttackStore | None = None,
) -> list[Reached]:
    """Attack the test images at every radius in turn, each from the points found at the one before.

    `plan.smoothing` "" attacks the plain score, `none` the same score with its exact value; the other ways attack
    the percentile under fresh noise, clean and attacked estimated with one evaluation key. With a store finished
    batches are kept; processes that share the work meet there, and each returns the whole.
    """
    images, tested = split.test.images, TestedImages.of(split.test)
    shared: dict[str, Any] = {
        "norm": options.norm,
        "method": options.method,
        "steps": options.steps,
        "restarts": options.restarts,
        "eot": options.eot,
        "seed": options.seed,
        "objective": options.objective,
        "material": material_of(split, plan, options),
        "store": store,
    }
    names = tested.index.tolist()
    victim = victim_of(detector, plan, purifier, options.fresh_draws)
    run: Callable[..., AttackResult] = attack_smoothed
    if plan.smoothing in ("none", ""):
        run, shared = attack, {**shared, "device": plan.device}
    seconds: list[float] = []

    def timed(**given: Any) -> AttackResult:
        began = perf_counter()
        found = run(victim, images, tested.labels, indices=names, **shared, **given)
        seconds.append(perf_counter() - began)
        return found

    return [
        _reached(detector, images, found, plan, taken)
        for found, taken in zip(attack_curve(timed, options.ascending), seconds, strict=True)
    ]


def material_of(split: DataSplit, plan: Plan, options: AttackOptions) -> Material:
    """Return what the attacker knows: other detectors, normals of the training, and the attacked images."""
    noisy = plan.smoothing not in ("none", "") or options.fresh_draws is not None
    normals = split.train.images[: NOISY_REFERENCES if noisy else REFERENCES]
    return Material(references=torch.cat([normals, split.test.images]), sources=options.sources)


def victim_of(
    detector: Detector, plan: Plan, purifier: Any = None, fresh_draws: int | None = None
) -> Detector | SmoothedDetector | SmoothedSum | RandomTarget:
    """Return what is attacked: the detector as the plan smooths it, or itself, on the plan's device.

    With `fresh_draws` it is the mean score under fresh noise of its own, of a detector that has any.
    """
    if fresh_draws is not None:
        if plan.smoothing != "" or purifier is not None:
            raise InputError("--fresh_draws: goes with --smoothing plain, the score under its own noise")
        return RandomTarget(
            detector.to(plan.device), fresh_draws, fresh_draws, plan.seed, plan.batch_size, plan.device
        )
    if plan.sigmas:
        return smooth_levels(detector, plan, purifier)
    if plan.smoothing not in ("none", ""):
        return smooth(detector, plan, purifier)
    if purifier is not None:
        raise InputError("--purifier: a score without noise is not denoised; use --smoothing denoise")
    return detector.to(plan.device)


def conditions_of(
    detector: Detector, split: DataSplit, plan: Plan, options: AttackOptions, reached: Sequence[Reached]
) -> list[Condition]:
    """Return the rows of an attack: clean scores, and the worst ones reached at each radius, ascending."""
    subject, tested = subject_of(detector, split, plan), TestedImages.of(split.test)
    rest: dict[str, Any] = {"n": plan.n if plan.smoothing not in ("none", "") else 0, "seed": plan.seed}
    if options.fresh_draws is not None:  # another score than that of the stored draws
        name = f"{subject.score_name} fresh_draws={options.fresh_draws}".strip()
        subject, rest["n"] = subject._replace(score_name=name), options.fresh_draws
    return [
        clean_condition(subject, tested, reached[0].clean, **rest),
        *(
            attack_condition(
                subject,
                tested,
                one.bounds,
                norm=options.norm,
                eps=one.found.eps,
                method=options.name,
                **rest,
            )
            for one in reached
        ),
    ]


def _reached(detector: Detector, images: Tensor, found: AttackResult, plan: Plan, seconds: float) -> Reached:
    """Rescore in float64 for the way `none`: its certificate is attained, and float32 could seem to leave it."""
    if plan.smoothing != "none":
        return Reached(found, np.asarray(found.clean_scores), found.bounds(), seconds)
    clean = np.mean(detector.score_interval(images.to(plan.device)), axis=0)
    attacked = np.mean(detector.score_interval(found.images.to(plan.device)), axis=0)
    _, worst = keep_worse(found.labels, (images, clean), (found.images, attacked))
    return Reached(found, clean, ScoreBounds(np.minimum(clean, worst), np.maximum(clean, worst)), seconds)
