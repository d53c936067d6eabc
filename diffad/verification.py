"""Checking a certificate that somebody else made: what its run folder says, derived once more from what lies under it.

    tables      from images.parquet, compared with summary.json
    images      names, labels and defects in the rows, compared with the test set (`diffad.verified_images`)
    levels      norm, n and alpha of each row, compared with those that its way and its options give
    options     of the stored draws, compared with those that the rows were recorded under
    threshold   from the stored draws of the held-out normals (`diffad.verified_images`)
    bounds      from the stored draws of the test images; without noise from the detector itself
    redraw      a keyed share of the noise, made and scored again (`diffad.redraw`)

Each check says `ok`, `failed` with the first difference, or `not checked` with the reason. Who recorded a run must
not be able to foresee which noise is redrawn: the key belongs to whoever checks.
What is computed again is equal bit for bit, or differs by rounding that cannot matter (`diffad.tolerance`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch import Tensor

from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from certify.types import FloatArray
from diffad.claims import Claim, recorded_lipschitz, recorded_purifier
from diffad.conditions import Condition
from diffad.plan import Plan
from diffad.results import SUMMARY, summarize
from diffad.runs import Run
from diffad.stored import Derivation, derive
from diffad.tolerance import TOLERANCE, agreement, relative_gap, what_it_moves

Status = Literal["ok", "failed", "not checked"]


@dataclass(frozen=True)
class Check:
    """One thing checked: its name, how it ended, and what was found."""

    name: str
    status: Status
    detail: str


def check_tables(run: Run) -> Check:
    """Derive summary.json from the rows and compare."""
    path = run.folder / SUMMARY
    if not path.is_file():
        return Check("tables", "failed", f"{SUMMARY} is missing")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return Check("tables", "failed", f"{SUMMARY} cannot be read: {error}")
    derived = json.loads(json.dumps(summarize(run)))
    difference = first_difference(stored, derived)
    if difference is not None:
        return Check("tables", "failed", f"{SUMMARY}: {difference}")
    count = sum(len(condition.images) for condition in run.conditions)
    return Check("tables", "ok", f"{len(derived['auroc'])} rows of {SUMMARY} from {count} rows of images")


def first_difference(stored: Any, derived: Any, where: str = "") -> str | None:
    """Return where two JSON values first differ, with both values; None if they are equal."""
    if isinstance(stored, dict) and isinstance(derived, dict):
        for key in derived | stored:
            if key not in stored or key not in derived:
                return (
                    f"{where}.{key} is {'missing' if key in derived else 'not in the derived tables'}".lstrip(
                        "."
                    )
                )
            found = first_difference(stored[key], derived[key], f"{where}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(stored, list) and isinstance(derived, list) and len(stored) == len(derived):
        pairs = enumerate(zip(stored, derived, strict=True))
        return next((d for i, (a, b) in pairs if (d := first_difference(a, b, f"{where}[{i}]"))), None)
    if isinstance(stored, list) and isinstance(derived, list):
        return f"{where} has {len(stored)} entries, {len(derived)} derived"
    return None if stored == derived else f"{where}: stored {stored!r}, derived {derived!r}"


def check_options(
    claim: Claim,
    stores: Mapping[str, ScoreStore],
    run: Run,
    *,
    lipschitz: float | None = None,
    purifier: str | None = None,
) -> Check:
    """Compare the configuration of the draws with what the rows were recorded under.

    Args:
        claim: what is checked.
        stores: the draws by their purpose: `certify`, and `calibrate` where it is kept.
        run: its manifest names detector, data and options.
        lipschitz: the constant that the detector itself declares, None where it could not be loaded.
        purifier: fingerprint of what denoised for it, None where nothing did or it could not be loaded.
    """
    name = f"options of {claim.name}"
    for purpose, store in stores.items():
        wrong = (
            wrong_option(claim, store, purpose, run)
            or wrong_purifier(claim, store, recorded_purifier(run), "the run says")
            or wrong_purifier(claim, store, purifier, "the one at hand is")
        )
        if wrong is not None:
            return Check(name, "failed", f"draws to {purpose}: {wrong}")
    recorded = recorded_lipschitz(run, claim.entry)
    if recorded is not None and lipschitz is not None and recorded != lipschitz:
        return Check(name, "failed", f"the run says L = {recorded:g}, the detector declares {lipschitz:g}")
    return Check(name, "ok", "noise, way, detector, purifier and data are those of the rows")


def wrong_option(claim: Claim, store: ScoreStore, purpose: str, run: Run) -> str | None:
    """Return the first option of a store that is not the one that the run says, with both values, or None."""
    for condition, plan in claim.rows:
        expected = {
            "purpose": purpose,
            "smoothing": claim.subject.smoothing,
            "sigma": claim.subject.sigma,
            "seed": condition.seed,
            "grid": plan.grid,
            "batch_size": plan.batch_size,
            "images_per_batch": plan.images_per_batch,
            "detector": run.manifest["detectors"].get(claim.entry),
            "data": run.manifest["data"]["fingerprint"],
        }
        for key, value in expected.items():
            if store.config.get(key) != value:
                return f"{key} is {store.config.get(key)!r}, the run says {value!r}"
    return None


def wrong_purifier(claim: Claim, store: ScoreStore, fingerprint: str | None, source: str) -> str | None:
    """Return how the purifier of a store differs from the one that the run names, and from a fingerprint, or None."""
    stored = store.config.get("purifier")
    if claim.purifier is None:
        return None if stored == "" else f"purifier is {stored!r}, the run names none"
    if not stored:
        return f"purifier is {stored!r}, the run names {claim.purifier}"
    if fingerprint is not None and stored != fingerprint:
        return f"purifier is {stored!r}, {source} {fingerprint!r}"
    return None


def check_levels(claim: Claim) -> Check:
    """Compare the norm, the number of draws and the level of each row with those that its way and its options give.

    Only the way `none` has neither: rows of another way that name no draws would pass for a certificate that holds
    without an error probability.
    """
    name = f"levels of {claim.name}"
    for condition, plan in claim.rows:
        wrong = wrong_norm(condition) or wrong_draws(condition, plan) or wrong_level(condition, plan)
        if wrong is not None:
            return Check(name, "failed", f"{condition.name}: {wrong}")
    certain = "without noise, so n = 0 and no alpha"
    return Check(
        name, "ok", certain if claim.subject.smoothing == "none" else "n and alpha are those of the options"
    )


def wrong_norm(condition: Condition) -> str | None:
    """Return what is wrong with the norm of a row, or None: a certificate holds in L2, whose balls are the smallest."""
    wrong = condition.condition == "certified" and condition.norm != "l2"
    return f"its norm is {condition.norm!r}, the bounds hold in 'l2'" if wrong else None


def wrong_draws(condition: Condition, plan: Plan) -> str | None:
    """Return how the number of draws of a row differs from the plan's, 0 without noise, or None."""
    need = 0 if plan.smoothing == "none" else plan.n
    if condition.n == need:
        return None
    return f"rests on {condition.n} draws an image, the way {plan.smoothing!r} under its options on {need}"


def wrong_level(condition: Condition, plan: Plan) -> str | None:
    """Return how the level of a row, or what it covers, differs from what its plan gives, or None."""
    level, kind = None, condition.alpha_kind
    if condition.condition == "certified" and plan.smoothing != "none":
        if kind not in (plan.alpha_kind, "per_image"):
            return f"alpha is of kind {kind!r}, the options give {plan.alpha_kind!r}"
        level = plan.alpha_per_image if kind == "per_image" else plan.level(len(condition.images))
    return None if condition.alpha == level else f"alpha {condition.alpha!r}, the options give {level!r}"


def check_bounds(claim: Claim, store: ScoreStore, lipschitz: float) -> Check:
    """Derive every clean score and every bound of a subject from its stored draws; they must be equal."""
    name = f"bounds of {claim.name}"
    derivations: dict[Plan, Derivation] = {}
    for condition, plan in claim.rows:
        if plan not in derivations:
            derivations[plan] = derive(store, condition.images, plan, lipschitz)
        difference = different_end(condition, derivations[plan].of(condition))
        if difference is not None:
            return Check(name, "failed", difference)
    most = "at most " if any(plan.adaptive for plan in derivations) else ""
    return Check(
        name, "ok", f"{len(claim.rows)} conditions from {most}{claim.draws} draws an image, L = {lipschitz:g}"
    )


def check_deterministic(claim: Claim, smoothed: SmoothedDetector, images: Tensor, run: Run) -> Check:
    """Compute every score and bound of a subject without noise again, from detector and images."""
    name, gap = f"bounds of {claim.name}", 0.0
    for condition, _ in claim.rows:
        index = condition.images.index
        if condition.condition == "clean":
            scores = smoothed.score(images[index], index.tolist())
            derived = (scores, scores)
        else:
            bounds = smoothed.bounds(images[index], index.tolist(), [condition.radius]).at(0)
            derived = (bounds.lower, bounds.upper)
        reach = smoothed.lipschitz * condition.radius
        difference = different_end(condition, derived, TOLERANCE, reach)
        if difference is not None:
            return Check(name, "failed", difference)
        ends = (condition.bounds.lower, condition.bounds.upper)
        gap = max(gap, relative_gap(np.stack(ends), np.stack(derived), reach).max())
    moves = what_it_moves(gap, claim, run, smoothed.lipschitz)
    if moves is not None:
        return Check(name, "failed", moves)
    return Check(name, "ok", f"{len(claim.rows)} conditions from the detector, {agreement(gap)}")


def different_end(
    condition: Condition,
    derived: tuple[FloatArray, FloatArray],
    tolerance: float = 0.0,
    reach: float = 0.0,
) -> str | None:
    """Return the first image whose stored end is not the derived one, or None; see `relative_gap`."""
    ends = {"lower": (condition.bounds.lower, derived[0]), "upper": (condition.bounds.upper, derived[1])}
    for end, (stored, other) in ends.items():
        wrong = relative_gap(stored, other, reach) > tolerance
        if wrong.any():
            at = int(wrong.argmax())
            return (
                f"{condition.name}, {condition.images.identifiers[at]}: {end} end stored "
                f"{stored[at]!s}, derived {other[at]!s}"
            )
    return None
