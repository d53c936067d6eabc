"""Checking which images a certificate speaks of: the rows against the test set, the threshold against held-out normals.

Bounds say nothing of labels, and a store nothing of the images that it lacks: whoever may choose either can make a
table better without touching a score. Both follow from the data alone, so they are compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from certify.log import image_digest
from certify.noise import to_grid
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from diffad.claims import Claim
from diffad.conditions import ImageTable, TestedImages
from diffad.plan import Plan
from diffad.runs import Run
from diffad.stored import stored_draws
from diffad.thresholds import calibrate, threshold_of_draws
from diffad.tolerance import TOLERANCE, agreement, relative_gap, what_it_moves
from diffad.verification import Check


def check_images(claim: Claim, test: ImageTable) -> Check:
    """Compare places, names, labels and defects of the rows with the whole test set."""
    name, expected = f"images of {claim.name}", TestedImages.of(test)
    for condition, _ in claim.rows:
        wrong = different_image(condition.images, expected)
        if wrong is not None:
            return Check(name, "failed", f"{condition.name}: {wrong}")
    return Check(
        name, "ok", f"{len(claim.rows)} conditions of all {len(expected)} test images, labels as in the data"
    )


def different_image(rows: TestedImages, expected: TestedImages) -> str | None:
    """Return where rows first differ from the test images, with both values, or None if they are those."""
    if len(rows) != len(expected):
        return f"has rows of {len(rows)} images, the test set has {len(expected)}"
    columns = {
        "place": (rows.index.tolist(), expected.index.tolist()),
        "name": (rows.identifiers, expected.identifiers),
        "label": (rows.labels.tolist(), expected.labels.tolist()),
        "defect": (rows.defects, expected.defects),
    }
    for at, identifier in enumerate(expected.identifiers):
        for column, (stored, true) in columns.items():
            if stored[at] != true[at]:
                return f"{column} of {identifier} stored {stored[at]!r}, the data says {true[at]!r}"
    return None


def check_threshold(claim: Claim, store: ScoreStore, normals: Tensor, lipschitz: float) -> Check:
    """Derive the calibrated threshold from the stored draws of the held-out normals (images, c, h, w).

    `lipschitz` is the constant of the certificate, which a conformal threshold rests on.

    The draws must be those of the first `calibration` normals, no more and no fewer: who may choose which of them
    count chooses the threshold.
    """
    name = f"threshold of {claim.name}"
    for plan in dict.fromkeys(plan for _, plan in claim.rows):
        wrong = other_normals(store, calibrating(plan, normals), plan.grid)
        if wrong is not None:
            return Check(name, "failed", wrong)
    for condition, plan in claim.rows:
        indices = range(len(calibrating(plan, normals)))
        derived = threshold_of_draws(stored_draws(store, indices, condition.n), plan, lipschitz)
        if derived != condition.threshold:
            return Check(
                name, "failed", f"{condition.name}: stored {condition.threshold!r}, derived {derived!r}"
            )
    return Check(name, "ok", f"from the draws of {len(store.digests())} held-out normals, those of the data")


def check_exact_threshold(claim: Claim, smoothed: SmoothedDetector, normals: Tensor, run: Run) -> Check:
    """Compute the threshold of a subject without noise again, from detector and held-out normals (images, c, h, w)."""
    name, gap = f"threshold of {claim.name}", 0.0
    derived: dict[Plan, float] = {}
    for condition, plan in claim.rows:
        if condition.condition == "clean" and condition.threshold is None:
            continue  # clean rows of an attack; they have none
        if plan not in derived:
            chosen = calibrating(plan, normals)
            derived[plan] = calibrate(smoothed, chosen, plan)
        stored = np.nan if condition.threshold is None else condition.threshold
        reach = smoothed.lipschitz * (plan.threshold_radius or 0.0)
        gap = max(gap, float(relative_gap(stored, derived[plan], reach)))
        if gap > TOLERANCE:
            return Check(
                name, "failed", f"{condition.name}: stored {condition.threshold!r}, derived {derived[plan]!r}"
            )
    moves = what_it_moves(gap, claim, run, smoothed.lipschitz)
    if moves is not None:
        return Check(name, "failed", moves)
    return Check(name, "ok", f"from the detector and the held-out normals of the data, {agreement(gap)}")


def calibrating(plan: Plan, normals: Tensor) -> Tensor:
    """Return the held-out normals that set the threshold of a plan."""
    return normals[: plan.calibration]


def other_normals(store: ScoreStore, normals: Tensor, grid: bool) -> str | None:
    """Return how the images of a store differ from these normals at places 0, 1, ..., or None if they are those."""
    kept, expected = store.digests(), dict(enumerate(digests(normals, grid)))
    if kept.keys() != expected.keys():
        odd = sorted(kept.keys() ^ expected.keys())[0]
        return (
            f"the draws are of {len(kept)} held-out normals, need the first {len(expected)}: "
            f"number {odd} is {'missing' if odd in expected else 'none of them'}"
        )
    for place, digest in expected.items():
        if not digest.startswith(kept[place]):  # a log keeps the first digits
            return f"the draws under number {place} are those of another picture than this held-out normal"
    return None


def digests(images: Tensor, grid: bool) -> Iterator[str]:
    """Yield the digest of each image, of the pixels that the noise is added to."""
    for place, image in enumerate(images):
        pixels = image.to("cpu").double().numpy()
        yield image_digest(to_grid(pixels, f"image {place}") if grid else pixels)
