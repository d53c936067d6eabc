"""Synthetic runs: known scores, bounds that widen with the radius, an attack that stays within them.

Fixtures return the functions, so that the tests need no import from here.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.conditions import (
    Condition,
    Subject,
    TestedImages,
    attack_condition,
    certified_conditions,
    clean_condition,
)
from diffad.manifest import build_manifest, now
from diffad.results import write_run
from diffad.runs import Run

RADII = (0.0, 0.1, 0.25, 0.5)


def build_images(each: int = 20) -> TestedImages:
    labels = np.repeat([0, 1], each)
    defects = tuple("good" if label == 0 else ("blob", "stain")[i % 2] for i, label in enumerate(labels))
    return TestedImages(
        np.arange(2 * each), tuple(f"test/{i:03d}.png" for i in range(2 * each)), labels, defects
    )


def build_scores(images: TestedImages, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    return np.where(images.labels == 1, 2.7, 2.0) + 0.3 * rng.standard_normal(len(images))


def build_conditions(
    subject: Subject, *, seed: int = 0, each: int = 20, slope: float = 1.0
) -> list[Condition]:
    """Clean, certified at `RADII` and attacked at .1 and .25 (L2) and 8/255 (Linf)."""
    images = build_images(each)
    scores = build_scores(images, seed)
    noisy = subject.smoothing not in ("", "none")
    width = np.array([(0.05 if noisy else 0.0) + slope * radius for radius in RADII])[:, None]
    lower, upper = scores - width, scores + width
    if noisy:
        lower[-1, -1], upper[-1, 0] = -np.inf, np.inf
    n, alpha = (1000, 0.001 / len(images)) if noisy else (0, None)
    kind = "total" if noisy else ""
    certified = certified_conditions(
        *(subject, images, ScoreBounds(lower, upper), RADII),
        **{"n": n, "alpha": alpha, "alpha_kind": kind, "seed": 0, "threshold": 2.4},
    )
    clean = clean_condition(subject, images, scores, n=n, seed=0, threshold=2.4)
    attacks = []
    for norm, eps, step in (("l2", 0.1, 0.06), ("l2", 0.25, 0.15), ("linf", 8 / 255, 0.2)):
        moved = slope * step
        ends = ScoreBounds(
            np.where(images.labels == 1, scores - moved, scores),
            np.where(images.labels == 0, scores + moved, scores),
        )
        options = {"norm": norm, "eps": eps, "n": n, "seed": 0, "threshold": 2.4}
        attacks.append(attack_condition(subject, images, ends, **options))
    return [clean, *certified, *attacks]


def build_test_manifest(
    command: str = "certify", *, detector: str = "pixel_nn", **changes: Any
) -> dict[str, Any]:
    data = {
        "name": "digits:8",
        "fingerprint": "ab" * 32,
        "resolution": 16,
        "channels": 1,
        "probe": {"near_duplicate_auroc": 0.52, "near_duplicates_normal": 2},
        "options": {"spec": "digits", "normal_class": 8},
        **changes,
    }
    return build_manifest(
        command,
        {"sigma": 1.0, "output_dir": Path("/somewhere/else/runs/one")},
        data=data,
        detectors={detector: f"weights of {detector}"},
        seeds={"noise": 0},
        started=now() - timedelta(seconds=12),
        argv=[command, "--sigma", "1.0"],
    )


def build_run(
    folder: Path,
    *,
    detector: str = "pixel_nn",
    smoothing: str = "none",
    seed: int = 0,
    slope: float = 1.0,
    each: int = 20,
    **changes: Any,
) -> Run:
    """Write a run folder; `changes` are entries of the manifest's data."""
    manifest = build_test_manifest(detector=detector, **changes)
    data = manifest["data"]
    sigma = None if smoothing in ("", "none") else 1.0
    subject = Subject(data["name"], data["resolution"], detector, smoothing, "l2", sigma)
    return write_run(folder, manifest, build_conditions(subject, seed=seed, slope=slope, each=each))


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """`images(each)`, `scores(images)`, `conditions(subject)`, `manifest(command)` and `run(folder)`."""
    return SimpleNamespace(
        images=build_images,
        scores=build_scores,
        conditions=build_conditions,
        manifest=build_test_manifest,
        run=build_run,
        radii=RADII,
    )
