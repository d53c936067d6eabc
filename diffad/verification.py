"""Checking a certificate that somebody else made: what its run folder says, derived once more from what lies under it.

    tables      from images.parquet, compared with summary.json
    options     of the stored draws, compared with those that the rows were recorded under
    threshold   from the stored draws of held-out normals
    bounds      from the stored draws of the test images; without noise from the detector itself
    redraw      a keyed share of the noise, made and scored again

Each check says `ok`, `failed` with the first difference, or `not checked` with the reason. Who recorded a run must
not be able to foresee which noise is redrawn: the key belongs to whoever checks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from certify.certificate import percentile_scores
from certify.checks import InputError
from certify.smoothing import SmoothedDetector, threshold_rank
from certify.store import ScoreStore
from certify.types import FloatArray
from diffad.conditions import Condition, Subject
from diffad.plan import Plan
from diffad.results import SUMMARY, summarize
from diffad.runs import Run
from diffad.sources import parse_radii
from diffad.stored import Derivation, derive, stored_draws

Status = Literal["ok", "failed", "not checked"]
TOLERANCE = 1e-5  # relative, of scores that another processor or another build of PyTorch computes


@dataclass(frozen=True)
class Check:
    """One thing checked: its name, how it ended, and what was found."""

    name: str
    status: Status
    detail: str


@dataclass(frozen=True)
class Claim:
    """What a run claims of one subject: its clean and certified rows, each with the plan it was recorded under."""

    subject: Subject
    rows: tuple[tuple[Condition, Plan], ...]

    @property
    def name(self) -> str:
        """The subject in a line of output."""
        return self.subject.label

    @property
    def draws(self) -> int:
        """The most draws an image that any row rests on; 0 without noise."""
        return max(condition.n for condition, _ in self.rows)


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


def claims_of(run: Run) -> list[Claim]:
    """Return the certified subjects of a run, each row with the plan of the command that wrote it.

    Raises:
        InputError: if a row belongs to no `certify` command of the manifest.
    """
    found: dict[Subject, list[tuple[Condition, Plan]]] = {}
    certified = {c.subject.score for c in run.conditions if c.condition == "certified"}
    for condition in run.conditions:
        if condition.subject.score in certified and condition.condition != "attack":
            found.setdefault(condition.subject.score, []).append((condition, plan_behind(condition, run)))
    if not found:
        raise InputError(f"{run.folder}: holds no certified rows; nothing to verify")
    return [Claim(subject, tuple(rows)) for subject, rows in found.items()]


def plan_behind(condition: Condition, run: Run) -> Plan:
    """Return the plan of the last `certify` command that can have written a condition."""
    for entry in reversed(run.manifest["commands"]):
        config = entry["config"]
        if entry["command"] != "certify" or condition.n not in (0, config["n"]):
            continue
        if condition.radius in (0.0, *parse_radii(config["radii"])):
            own = {field.name: config[field.name] for field in fields(Plan) if field.name in config}
            subject = condition.subject
            return Plan(
                **{**own, "radii": parse_radii(config["radii"])}
                | {"smoothing": subject.score.smoothing, "sigma": subject.sigma, "device": "cpu"}
            )
    raise InputError(f"{run.folder}: no certify command in manifest.json has written {condition.name}")


def open_store(folder: Path) -> ScoreStore | None:
    """Return the draws kept in a folder, or None if there are none."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        store = ScoreStore(folder, record["config"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not the configuration of a score store ({error})") from error
    if record.get("hash") != store.hash:
        raise InputError(f"{path}: the configuration is not the one that its hash was made of")
    return store


def check_options(claim: Claim, store: ScoreStore, run: Run, lipschitz: float | None = None) -> Check:
    """Compare the configuration of the draws, and the level of each row, with what the rows were recorded under.

    `lipschitz` is the constant that the detector itself declares, None where it could not be loaded.
    """
    name = f"options of {claim.name}"
    expected = {
        "smoothing": claim.subject.smoothing,
        "sigma": claim.subject.sigma,
        "seed": claim.rows[0][0].seed,
        "detector": run.manifest["detectors"].get(claim.subject.detector),
        "data": run.manifest["data"]["fingerprint"],
    }
    for key, value in expected.items():
        if store.config.get(key) != value:
            return Check(name, "failed", f"draws: {key} is {store.config.get(key)!r}, the run says {value!r}")
    recorded = recorded_lipschitz(run, claim.subject.detector)
    if recorded is not None and lipschitz is not None and recorded != lipschitz:
        return Check(name, "failed", f"the run says L = {recorded:g}, the detector declares {lipschitz:g}")
    wrong = wrong_level(claim)
    if wrong is not None:
        return Check(name, "failed", wrong)
    return Check(name, "ok", "sigma, seed, way, detector, data and levels are those of the rows")


def wrong_level(claim: Claim) -> str | None:
    """Return the first row whose level is not the one that its plan gives it."""
    for condition, plan in claim.rows:
        if condition.alpha is None:
            continue
        per_image = condition.alpha_kind == "per_image"
        level = plan.alpha_per_image if per_image else plan.level(len(condition.images))
        if condition.alpha != level:
            return f"{condition.name}: alpha {condition.alpha!r}, the options give {level!r}"
    return None


def check_threshold(claim: Claim, store: ScoreStore) -> Check:
    """Derive the calibrated threshold from the stored draws of held-out normals."""
    name = f"threshold of {claim.name}"
    indices = list(store.digests())
    for condition, plan in claim.rows:
        draws = stored_draws(store, indices, condition.n)
        scores = percentile_scores(draws, plan.percentile)
        derived = float(np.sort(scores)[threshold_rank(len(indices), plan.quantile) - 1])
        if derived != condition.threshold:
            return Check(
                name, "failed", f"{condition.name}: stored {condition.threshold!r}, derived {derived!r}"
            )
    return Check(name, "ok", f"from the draws of {len(indices)} held-out normals")


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


def check_deterministic(claim: Claim, smoothed: SmoothedDetector, images: Tensor) -> Check:
    """Compute every score and bound of a subject without noise again, from detector and images."""
    name = f"bounds of {claim.name}"
    same = True
    for condition, _ in claim.rows:
        index = condition.images.index
        if condition.condition == "clean":
            scores = smoothed.score(images[index], index.tolist())
            derived = (scores, scores)
        else:
            bounds = smoothed.bounds(images[index], index.tolist(), [condition.radius]).at(0)
            derived = (bounds.lower, bounds.upper)
        if different_end(condition, derived) is not None:
            same = False
            difference = different_end(condition, derived, TOLERANCE)
            if difference is not None:
                return Check(name, "failed", difference)
    return Check(name, "ok", f"{len(claim.rows)} conditions from the detector, {agreement(same)}")


def different_end(
    condition: Condition, derived: tuple[FloatArray, FloatArray], tolerance: float = 0.0
) -> str | None:
    """Return the first image whose stored end is not the derived one, or None."""
    ends = {"lower": (condition.bounds.lower, derived[0]), "upper": (condition.bounds.upper, derived[1])}
    for end, (stored, other) in ends.items():
        wrong = ~np.isclose(other, stored, rtol=tolerance, atol=0.0)
        if wrong.any():
            at = int(wrong.argmax())
            return (
                f"{condition.name}, {condition.images.identifiers[at]}: {end} end stored "
                f"{stored[at]!s}, derived {other[at]!s}"
            )
    return None


def agreement(same: bool) -> str:
    """Return how closely what was computed again agrees."""
    return "equal bit for bit" if same else f"equal within {TOLERANCE:g} relative, not bit for bit"


def recorded_lipschitz(run: Run, detector: str) -> float | None:
    """Return the constant L that the manifest records for a detector's certificate, None where it does not."""
    for entry in reversed(run.manifest["commands"]):
        constants: Mapping[str, float] = entry["config"].get("lipschitz", {})
        if detector in constants:
            return float(constants[detector])
    return None
