"""The network-free detectors, each with the options that validation data prefers.

Validation holds held-out normals and synthetic defects. A candidate is judged by the AUROC it certifies without
noise (both sides), averaged over radii: deterministic, and a matter of seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from certify.certificate import lipschitz_bounds
from certify.metrics import auroc
from diffad.data import ImageSet
from diffad.detector import Detector
from diffad.registry import detector_class

COMPONENTS = (5, 20, 50, 100, 200, 400, 600)
PATCHES = (5, 9)
IMAGES = 100  # validation images of each label, at most


def fit_baseline(
    name: str,
    train: Float[Tensor, "n c h w"],
    validation: ImageSet,
    radii: Sequence[float],
    *,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
) -> Detector:
    """Return the fitted detector of `name`; pca and patch_nn with their best option on `validation`.

    Arguments that are `given` to the constructor are not chosen.
    """
    arguments = dict(given or {})
    chosen = [options for options in _options(name, train.shape) if not set(options) & set(arguments)]
    candidates = [
        detector_class(name)(**arguments, **options).fit(train, seed=seed) for options in chosen or [{}]
    ]
    if len(candidates) == 1:
        return candidates[0]
    labels = validation.labels.numpy()
    kept = np.concatenate([np.flatnonzero(labels == label)[:IMAGES] for label in (0, 1)])
    seen = validation.take([int(i) for i in kept])
    return max(candidates, key=lambda candidate: certified_merit(candidate, seen, radii))


def certified_merit(detector: Detector, images: ImageSet, radii: Sequence[float]) -> float:
    """Return the mean over `radii` of the AUROC certified without noise."""
    lower, upper = detector.score_interval(images.images)
    assert detector.lipschitz is not None
    bounds = lipschitz_bounds(lower, upper, detector.lipschitz, list(radii))
    return float(np.mean(auroc(bounds, images.labels.numpy())))


def _options(name: str, shape: Sequence[int]) -> Iterator[dict[str, Any]]:
    images, pixels = int(shape[0]), int(np.prod(shape[1:]))
    if name == "pca":
        most = min(images, pixels) - 1
        counts = [count for count in COMPONENTS if count <= most] or [max(1, most)]
        yield from ({"n_components": count} for count in counts)
    elif name == "patch_nn":
        side = min(shape[-2:])
        sizes = [size for size in PATCHES if size <= side] or [int(side)]
        yield from ({"patch_size": size} for size in sizes)
    else:
        yield {}
