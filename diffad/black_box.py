"""Two comparisons of attacks: what carries over between detectors, and what an attack on the classifier does to them.

rows = transfer_table(detectors, split.test, norm="linf", eps="8/255", options=split.options)
print(format_transfer(rows))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError, check_choice
from certify.console import progress
from certify.types import SIDES, FloatArray, ScoreBounds
from diffad.attacks import ThreatModel, attack
from diffad.attacks.classification import ClassificationTarget, Logits
from diffad.attacks.objective import GradientCount, directions
from diffad.attacks.target import ScoreTarget, batches
from diffad.attacks.threat import Radius
from diffad.attacks.transfer import crafted
from diffad.data import ImageSet
from diffad.detector import Detector
from diffad.outlier_sets import auroc_over_sets
from diffad.tables import align

OTHERS = "all others"
Row = dict[str, Any]


def transfer_table(
    targets: Mapping[str, Detector],
    test: ImageSet,
    *,
    norm: str,
    eps: Radius,
    sources: Mapping[str, Detector] | None = None,
    steps: int = 50,
    batch_size: int = 64,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Show every target the points crafted on every source by FGSM and by momentum PGD.

    Each source is attacked once. Of its two points, and the clean one, a target is judged by the worst for each image.

    Args:
        targets: detectors by name, without noise of their own.
        test: images and labels; `norm`, `eps` the threat, in [0, 1] pixel units or as "8/255".
        sources: detectors with gradients; the targets unless told.
        steps: of momentum PGD.
        options: of the data (`DataSplit.options`): under protocol `ood` an AUROC is the mean over outlier sets.

    Returns:
        Rows with `source`, `target` and the AUROC of the sides `clean`, `in`, `out` and `both`. A source of the same
        name as its target is no transfer but the attack itself. The source "all others" keeps for each image the worst
        of all sources but the target's own; absent where there is none.
    """
    sources = targets if sources is None else sources
    if not targets or not sources or OTHERS in {*targets, *sources}:
        raise InputError(f"transfer: need targets and sources by name, none called {OTHERS!r}")
    for name, detector in (*targets.items(), *sources.items()):
        _check_deterministic(name, detector)
    for name, detector in sources.items():
        if not detector.has_gradient:
            raise InputError(
                f"transfer: {name}: {detector.name} has no gradient to craft by; leave it out of sources"
            )
    labels = test.labels.numpy()
    threat = ThreatModel.parse(norm, eps)
    judges = {name: ScoreTarget(one.to(device).score, batch_size, device) for name, one in targets.items()}
    clean = {name: judge.scores(test.images, (), "select") for name, judge in judges.items()}
    reached: dict[tuple[str, str], FloatArray] = {}
    for name, source in progress(sources.items(), "crafting on sources", len(sources)):
        points = _crafted(source.to(device), threat, test.images, labels, steps, batch_size, device)
        for target, judge in judges.items():
            shown = [clean[target], *(judge.scores(part, (), "select") for part in points)]
            reached[name, target] = _worst(shown, labels)
    rows = []
    for target in targets:
        found = {name: reached[name, target] for name in sources}
        others = [scores for name, scores in found.items() if name != target]
        if others:
            found[OTHERS] = _worst(others, labels)
        for name, scores in found.items():
            areas = _areas(scores, clean[target], test, options or {})
            rows.append({"source": name, "target": target, **areas})
    return rows


def _check_deterministic(name: str, detector: Detector) -> None:
    """Refuse a detector whose stored draw would be judged in place of fresh ones."""
    if detector.is_random:
        raise InputError(
            f"{name}: {detector.name} has noise of its own, of which one score says little; use `diffad attack`"
        )


def _crafted(
    source: Detector,
    threat: ThreatModel,
    images: Tensor,
    labels: Any,
    steps: int,
    batch_size: int,
    device: str,
) -> list[Tensor]:
    """Return FGSM's and momentum PGD's points of all images, on the CPU."""
    parts: list[list[Tensor]] = []
    for rows in batches(len(images), batch_size):
        clean = images[rows].to(device)
        signs = torch.from_numpy(directions(labels[rows])).to(clean)
        found = crafted(source.score, threat, clean, clean, signs, steps, GradientCount())
        parts.append([threat.inside(points, clean).cpu() for points in found])
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def classification_against_detection(
    detector: Detector,
    logits: Logits,
    test: ImageSet,
    *,
    norm: str,
    eps: Radius,
    classes: Sequence[int] | None = None,
    method: str = "pgd",
    steps: int | None = None,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Attack the classifier, then the detector on it, with one budget, and let the detector score both.

    Args:
        detector: on the classifier, without noise of its own.
        logits: images to class scores, of the classifier (`BackboneScore.logits`, `Backbone.logits`), where it is not a
            part of the detector on `device` already.
        classes: class number of each test image, -1 for none (see `ClassificationTarget.of`).
        method, steps, restarts, seed: of both attacks, as in `diffad.attacks.attack`.
        options: of the data, as in `transfer_table`.

    Returns:
        A row for each `attack`, "classification" and "detection": AUROC of the four sides, and `changed_class`, the
        share of normals whose class the attack has changed. The detector scores the points of the first as they are:
        where they look better to it than the clean image, that stands.
    """
    _check_deterministic("detection", detector)
    labels = test.labels.numpy()
    given: Any = {
        "norm": norm,
        "eps": eps,
        "method": method,
        "steps": steps,
        "restarts": restarts,
        "seed": seed,
    }
    target = ClassificationTarget.of(logits, test.images, classes, batch_size=batch_size, device=device)
    judge = ScoreTarget(detector.to(device).score, batch_size, device)
    clean = judge.scores(test.images, (), "select")
    seen = np.array(target.seen(test.images))
    rows = []
    for name, victim in (("classification", target), ("detection", judge)):
        found = attack(victim, test.images, labels, **given, device=device)
        scores = judge.scores(found.images, (), "select")
        changed = (np.array(target.seen(found.images)) != seen)[labels == 0]
        areas = _areas(scores, clean, test, options or {})
        rows.append({"attack": name, **areas, "changed_class": float(changed.mean())})
    return rows


def _worst(scores: Sequence[FloatArray], labels: Any) -> FloatArray:
    """Return for each image the highest score of a normal, the lowest of an anomaly."""
    stacked = np.stack(scores)
    worst: FloatArray = np.where(labels == 0, stacked.max(0), stacked.min(0))
    return worst


def _areas(
    scores: FloatArray, clean: FloatArray, test: ImageSet, options: Mapping[str, Any]
) -> dict[str, float]:
    attacked, calm = ScoreBounds.exact(scores), ScoreBounds.exact(clean)
    return {
        side: auroc_over_sets(attacked, test.labels.numpy(), test.defects, options, side, calm)["mean"]
        for side in SIDES
    }


def format_transfer(rows: Sequence[Row], side: str = "both") -> str:
    """Plain text of `transfer_table`: a line for each source, a column for each target, AUROC of one side."""
    check_choice(side, SIDES, "side")
    targets = list(dict.fromkeys(row["target"] for row in rows))
    sources = sorted(dict.fromkeys(row["source"] for row in rows), key=lambda name: name == OTHERS)
    cells = {(row["source"], row["target"]): f"{row[side]:.3f}" for row in rows}
    clean = {row["target"]: f"{row['clean']:.3f}" for row in rows}
    lines = [["source \\ target", *targets], ["no attack", *(clean[name] for name in targets)]]
    lines += [[source, *(cells.get((source, name), "-") for name in targets)] for source in sources]
    return align(lines)
