"""What follows an attack: sanity checks of what it reached, and evidence by which a certificate can judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.smoothing import SmoothedDetector
from diffad.attack_evaluation import NOISY_REFERENCES, AttackOptions, Reached, material_of, victim_of
from diffad.attacks.attack import EVALUATED_TOGETHER, as_target
from diffad.attacks.checks import CheckOutcome, run_checks
from diffad.attacks.store import AttackStore, collect, digest
from diffad.attacks.target import batches
from diffad.conditions import IntArray, TestedImages
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.evidence import Evidence
from diffad.plan import Plan, smooth


def check_reached(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    options: AttackOptions,
    reached: Sequence[Reached],
    budget: str,
    *,
    purifier: Any = None,
) -> list[list[CheckOutcome]]:
    """Return what the sanity checks of `diffad.attacks.checks` find at each radius; `budget` one of its LEVELS."""
    victim = victim_of(detector, plan, purifier, options.fresh_draws)
    tested = TestedImages.of(split.test)
    plain: dict[str, Any] = {"device": plan.device} if plan.smoothing in ("none", "") else {}
    material = material_of(split, plan, options)  # what the attack knew, or it would not be the same attack
    if material.references is not None:  # scored once, not by every repetition
        shown = material.references
        scores = as_target(victim, **plain).scores(shown, range(len(shown)), "select")
        material = replace(material, reference_scores=scores)
    outcomes: list[list[CheckOutcome]] = []
    for one in reached:
        outcomes.append(
            run_checks(
                victim,
                split.test.images,
                tested.labels,
                one.found,
                budget,
                indices=tested.index.tolist(),
                references=split.train.images[:NOISY_REFERENCES],
                known=outcomes[0] if outcomes else (),
                material=material,
                **plain,
            )
        )
    return outcomes


def gather_evidence(
    detector: Detector,
    split: DataSplit,
    plan: Plan,
    reached: Sequence[Reached],
    *,
    purifier: Any = None,
    store: AttackStore | None = None,
) -> list[Evidence]:
    """Return for each radius the attacked images and what judges them: fresh draws, or the float64 enclosure.

    The draws, `plan.n` an image, come from the seed after the plan's, so that neither the attack nor its evaluation
    has seen them. A score without noise and without a proven constant can't be certified, and needs no judge;
    a sum over noise levels has none yet.
    """
    index = TestedImages.of(split.test).index
    plain = plan.smoothing in ("none", "")
    if plan.sigmas or (plain and detector.lipschitz is None):
        return [Evidence(index, one.found.images) for one in reached]
    if plain:
        found = [one.found.images for one in reached]
        ends = [detector.score_interval(images.to(plan.device)) for images in found]
        return [
            Evidence(index, images, enclosure=np.stack(pair))
            for images, pair in zip(found, ends, strict=True)
        ]
    fresh = smooth(detector, replace(plan, seed=plan.seed + 1), purifier)
    return [_drawn(fresh, index, one.found.images, store) for one in reached]


def _drawn(fresh: SmoothedDetector, index: IntArray, images: Tensor, store: AttackStore | None) -> Evidence:
    groups = list(batches(len(images), EVALUATED_TOGETHER))
    options = {"evidence": fresh.sampling_config("evaluate"), "n": fresh.n, "images": digest(images)}
    parts = collect(
        store,
        options,
        len(groups),
        lambda place: {
            "draws": torch.from_numpy(
                fresh.noisy_scores(images[groups[place]], index[groups[place]].tolist(), "evaluate")
            )
        },
        "evidence",
    )
    draws = torch.cat([part["draws"] for part in parts]).numpy()
    return Evidence(index, images, fresh.percentile, np.sort(draws, axis=1))
