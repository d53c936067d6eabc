"""The sandwich: no attacked score may leave its certified interval.

A violation is an attacked image whose score, by an interval that is wrong with probability at most .001 over the number
of images judged, lies wholly outside the bounds that a certificate gives it at its total alpha; without noise, whose
exact score does. Such an image disproves the certificate, or shows a bug in it or in the attack.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from certify.checks import InputError
from certify.files import write_atomic, write_json
from certify.types import ScoreBounds
from diffad.conditions import Condition, IntArray
from diffad.evidence import Evidence, read_evidence
from diffad.runs import Run, parts_of

LEVEL = 0.001  # that an attack which broke nothing is called a violation, in the whole comparison
FOLDER = "violations"
# Why an attacked image that meets a certificate is not judged; each goes on from "12 ...".
NO_IMAGES = "were attacked by a run that kept no images to judge"
NO_JUDGE = "were attacked by a run that kept nothing to judge them by"
WHOLE_SET = "meet a certificate of a whole set, not of each image (--confidence failures or population)"
NO_BOUND = "have no finite bound to leave"
TOO_FEW = "have too few draws to be judged"


@dataclass(frozen=True)
class Pair:
    """A certificate and an attack of one detector at one radius, on the images (n,) of both, and their evidence.

    `rows` (n,) says where the evidence of each image of `certified` stands.
    """

    certified: Condition
    attacked: Condition
    evidence: Evidence
    rows: IntArray

    @property
    def bounded(self) -> int:
        """How many images have a finite bound to leave."""
        bounds = self.certified.bounds
        return int((np.isfinite(bounds.lower) | np.isfinite(bounds.upper)).sum())

    def ends(self, level: float) -> ScoreBounds:
        """The intervals (n,) of the attacked scores, each wrong with probability at most `level`."""
        found = self.evidence.interval(level)
        return ScoreBounds(found.lower[self.rows], found.upper[self.rows])


@dataclass(frozen=True)
class Violation:
    """An attacked image (c, h, w) outside of its certified interval; ends of the score's interval and the bounds."""

    certified: Condition
    attacked: Condition
    position: int
    image: Tensor
    score: tuple[float, float]
    bounds: tuple[float, float]

    @property
    def sentence(self) -> str:
        """One line for people."""
        name = self.attacked.images.identifiers[self.position]
        low, high = self.score
        return (
            f"{name} under {self.attacked.name}: its score lies in [{low:.9g}, {high:.9g}], certified was "
            f"[{self.bounds[0]:.9g}, {self.bounds[1]:.9g}]"
        )


@dataclass(frozen=True)
class Sandwich:
    """How many attacked images were judged by draws or enclosures of their own, why others were not, and who fell.

    An image counts as judged only where it could have left a finite bound; `reasons` counts the others.
    """

    judged: int
    reasons: Mapping[str, int]
    violations: tuple[Violation, ...]

    @property
    def unjudged(self) -> int:
        """How many attacked images meet a certificate and could not be judged by it."""
        return sum(self.reasons.values())

    @property
    def sentence(self) -> str:
        """One line for people; empty where certificates and attacks do not meet."""
        rest = [f"{count} {reason}" for reason, count in self.reasons.items() if count]
        left = f"{len(self.violations)} of {self.judged} attacked images left their certified interval"
        said = [f"judged by draws or enclosures of their own, {left}"] if self.judged else []
        return "; ".join([*said, *rest])


def check_sandwich(runs: Sequence[Run]) -> Sandwich:
    """Judge every attacked image by the certificates of its detector, way and noise at the same L2 radius.

    Every attack of every run meets every certificate, those of one key in two folders too: which of them is the
    later one says nothing about the other.
    Raises InputError where a certificate speaks of another percentile of the noisy score than was attacked.
    """
    runs = list({run.folder.resolve(): run for run in runs}.values())
    homes = {id(condition): run for run in runs for condition in run.conditions}
    pairs: list[Pair] = []
    reasons: Counter[str] = Counter()
    for certified, attacked in _meetings(runs):
        shared = np.intersect1d(certified.images.index, attacked.images.index)
        evidence = read_evidence(homes[id(attacked)].folder, attacked)
        if certified.alpha_kind in ("failures", "population"):
            reasons[WHOLE_SET] += shared.size
        elif evidence is None:
            reasons[NO_IMAGES] += shared.size
        elif not evidence.judges:
            reasons[NO_JUDGE] += shared.size
        else:
            _check_percentile(homes[id(certified)], certified, evidence)
            kept = np.intersect1d(shared, evidence.index)
            reasons[NO_IMAGES] += shared.size - kept.size
            if kept.size == 0:
                continue
            order = np.argsort(evidence.index)
            rows = order[np.searchsorted(evidence.index, kept, sorter=order)]
            pairs.append(Pair(certified.take(kept), attacked, evidence, rows))
    level = LEVEL / max(sum(pair.bounded for pair in pairs), 1)  # no more images than these can be judged
    judged, violations = 0, list[Violation]()
    for pair in pairs:
        ends = pair.ends(level)
        able = _able_to_leave(ends, pair.certified.bounds)
        judged += able
        reasons[NO_BOUND] += len(pair.rows) - pair.bounded
        reasons[TOO_FEW] += pair.bounded - able
        violations += _violations(pair, ends)
    return Sandwich(judged, dict(reasons), tuple(violations))


def save_violations(folder: Path, violations: Iterable[Violation]) -> Path:
    """Write each attacked image that broke a certificate, exactly and as a picture, and a list of all of them."""
    records: list[dict[str, Any]] = []
    for number, found in enumerate(violations):
        name, images = f"{number:03d}", found.attacked.images
        exact = {"image": found.image.contiguous()}
        write_atomic(folder / f"{name}.safetensors", partial(save_file, exact))
        write_atomic(folder / f"{name}.png", _picture(found.image).save)
        records.append(
            {
                "file": f"{name}.safetensors",
                "image_index": int(images.index[found.position]),
                "image_id": images.identifiers[found.position],
                "label": int(images.labels[found.position]),
                "attacked": found.attacked.name,
                "certified": found.certified.name,
                "score": [_number(end) for end in found.score],
                "bounds": [_number(end) for end in found.bounds],
            }
        )
    write_json(folder / "violations.json", records)
    return folder


def _meetings(runs: Sequence[Run]) -> Iterator[tuple[Condition, Condition]]:
    """Certificates, without the literature's convention, and L2 attacks that speak of one score at one radius."""
    together: dict[tuple[Any, ...], list[Condition]] = {}
    for identity, conditions in (part for run in runs for part in parts_of(run).items()):
        together.setdefault(identity, []).extend(conditions)
    for conditions in together.values():
        proved: list[Condition] = []
        for one in (c for c in conditions if c.condition == "certified" and c.alpha_kind != "per_image"):
            if not any(_equal(one, other) for other in proved):  # a copy in another folder says nothing new
                proved.append(one)
        tried = [c for c in conditions if c.condition == "attack" and c.norm == "l2"]
        for attacked, certified in product(tried, proved):
            same = attacked.subject.score == certified.subject.score
            if same and math.isclose(attacked.radius, certified.radius, rel_tol=1e-12):
                yield certified, attacked


def _equal(one: Condition, other: Condition) -> bool:
    return (
        one.key == other.key
        and np.array_equal(one.images.index, other.images.index)
        and np.array_equal(one.bounds.lower, other.bounds.lower)
        and np.array_equal(one.bounds.upper, other.bounds.upper)
    )


def _check_percentile(run: Run, certified: Condition, evidence: Evidence) -> None:
    configs = [entry["config"] for entry in run.manifest["commands"] if entry["command"] == "certify"]
    other = {config["percentile"] for config in configs if "percentile" in config} - {evidence.percentile}
    if evidence.percentile is not None and other:
        raise InputError(
            f"compare: {certified.name} is about the percentile {other.pop():g} of the noisy score, the attack about "
            f"{evidence.percentile:g}; attack with the --percentile of the certificate"
        )


def _able_to_leave(ends: ScoreBounds, bounds: ScoreBounds) -> int:
    """How many images have a finite end of the score's interval against the finite bound that it would pass."""
    below = np.isfinite(ends.upper) & np.isfinite(bounds.lower)
    above = np.isfinite(ends.lower) & np.isfinite(bounds.upper)
    return int((below | above).sum())


def _violations(pair: Pair, ends: ScoreBounds) -> Iterator[Violation]:
    """The images of a pair whose score, in `ends` (n,), lies wholly outside of their bounds."""
    bounds = pair.certified.bounds
    position = {int(index): row for row, index in enumerate(pair.attacked.images.index)}
    outside = (ends.upper < bounds.lower) | (ends.lower > bounds.upper)
    for row in np.flatnonzero(outside).tolist():
        yield Violation(
            pair.certified,
            pair.attacked,
            position[int(pair.certified.images.index[row])],
            pair.evidence.images[pair.rows[row]],
            (float(ends.lower[row]), float(ends.upper[row])),
            (float(bounds.lower[row]), float(bounds.upper[row])),
        )


def _picture(image: Tensor) -> Image.Image:
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy())


def _number(value: float) -> float | None:
    """JSON has no infinity; None stands for an end without a bound."""
    return value if math.isfinite(value) else None
