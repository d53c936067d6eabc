"""The sandwich: no attacked score may leave its certified interval.

A violation is an attacked image whose score, by an interval that is wrong with probability at most .001 over the number
of images judged, lies wholly outside the bounds that a certificate gives it at its total alpha; without noise, whose
exact score does. Such an image disproves the certificate, or shows a bug in it or in the attack.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from certify.checks import InputError
from certify.files import write_atomic, write_json
from diffad.conditions import Condition
from diffad.evidence import Evidence, read_evidence
from diffad.runs import Run, join_runs

LEVEL = 0.001  # that an attack which broke nothing is called a violation, in the whole comparison
FOLDER = "violations"


@dataclass(frozen=True)
class Pair:
    """A certificate and an attack of one detector at one radius, and what the attack's run kept of its images."""

    certified: Condition
    attacked: Condition
    evidence: Evidence


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
    """How many attacked images were judged by draws or enclosures of their own, how many could not be, and who fell."""

    judged: int
    unjudged: int
    violations: tuple[Violation, ...]

    @property
    def sentence(self) -> str:
        """One line for people; empty where certificates and attacks do not meet."""
        rest = (
            f"; {self.unjudged} were attacked by a run that kept no images to judge" if self.unjudged else ""
        )
        if self.judged == 0:
            return rest.removeprefix("; ")
        left = f"{len(self.violations)} of {self.judged} attacked images left their certified interval"
        return f"judged by draws or enclosures of their own, {left}{rest}"


def check_sandwich(runs: Sequence[Run]) -> Sandwich:
    """Judge every attacked image by the certificates of its detector, way and noise at the same L2 radius.

    Raises InputError where a certificate speaks of another percentile of the noisy score than was attacked.
    """
    homes = {id(condition): run for run in runs for condition in run.conditions}
    pairs: list[Pair] = []
    unjudged = 0
    for certified, attacked in _meetings(runs):
        evidence = read_evidence(homes[id(attacked)].folder, attacked)
        if evidence is None:
            unjudged += len(np.intersect1d(certified.images.index, attacked.images.index))
            continue
        _check_percentile(homes[id(certified)], certified, evidence)
        pairs.append(Pair(certified, attacked, evidence))
    judged = sum(len(np.intersect1d(pair.certified.images.index, pair.evidence.index)) for pair in pairs)
    violations = [found for pair in pairs for found in _violations(pair, LEVEL / judged)] if judged else []
    return Sandwich(judged, unjudged, tuple(violations))


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
    """Certificates at their total alpha and L2 attacks that speak of one score at one radius."""
    for run in join_runs(runs):
        proved = [c for c in run.conditions if c.condition == "certified" and c.alpha_kind in ("total", "")]
        tried = [c for c in run.conditions if c.condition == "attack" and c.norm == "l2"]
        for attacked in tried:
            for certified in proved:
                same = attacked.subject.score == certified.subject.score
                if same and math.isclose(attacked.radius, certified.radius, rel_tol=1e-12):
                    yield certified, attacked


def _check_percentile(run: Run, certified: Condition, evidence: Evidence) -> None:
    configs = [entry["config"] for entry in run.manifest["commands"] if entry["command"] == "certify"]
    other = {config["percentile"] for config in configs if "percentile" in config} - {evidence.percentile}
    if evidence.percentile is not None and other:
        raise InputError(
            f"compare: {certified.name} is about the percentile {other.pop():g} of the noisy score, the attack about "
            f"{evidence.percentile:g}; attack with the --percentile of the certificate"
        )


def _violations(pair: Pair, level: float) -> Iterator[Violation]:
    evidence, ends = pair.evidence, pair.evidence.interval(level)
    certified = pair.certified.take(evidence.index)
    where = {int(index): row for row, index in enumerate(evidence.index)}
    position = {int(index): row for row, index in enumerate(pair.attacked.images.index)}
    for row, index in enumerate(certified.images.index.tolist()):
        low, high = float(ends.lower[where[index]]), float(ends.upper[where[index]])
        lower, upper = float(certified.bounds.lower[row]), float(certified.bounds.upper[row])
        if high < lower or low > upper:
            image = evidence.images[where[index]]
            yield Violation(
                pair.certified, pair.attacked, position[index], image, (low, high), (lower, upper)
            )


def _picture(image: Tensor) -> Image.Image:
    levels = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy())


def _number(value: float) -> float | None:
    """JSON has no infinity; None stands for an end without a bound."""
    return value if math.isfinite(value) else None
