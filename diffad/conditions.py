"""What a run holds: one condition for each column of scores.

    tested = TestedImages.of(split.test, indices)
    subject = Subject("digits:8", 16, "diffusion", "reference", "l2", 1.0)
    found = [clean_condition(subject, tested, scores, n=1000, seed=0),
             *certified_conditions(subject, tested, bounds, radii, n=1000, alpha=1e-5, alpha_kind="total",
                                   seed=0)]

A `Condition` is one detector under one threat on all tested images. It is written and replaced whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from certify.checks import InputError, check_choice, check_labels
from certify.types import FloatArray, ScoreBounds
from certify.ways import WAYS
from diffad.subject import Subject as Subject

IntArray = np.ndarray[Any, np.dtype[np.int64]]

CONDITIONS = ("clean", "attack", "certified")
SMOOTHINGS = ("", *WAYS)
NORMS = ("", "l2", "linf")
ALPHA_KINDS = ("", "total", "failures", "population", "per_image")

# What tells one condition from another; rows that agree in all of these are one column of scores.
KEY_COLUMNS = (
    *("dataset", "resolution", "detector", "smoothing", "score_name", "sigma"),
    *("condition", "norm", "radius", "n", "alpha_kind", "method"),
)


@runtime_checkable
class ImageTable(Protocol):
    """What is needed of a set of test images."""

    @property
    def labels(self) -> Tensor:
        """0 normal, 1 anomalous, (images,)."""

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Names, one an image."""

    @property
    def defects(self) -> tuple[str, ...]:
        """Kinds of defect, `good` for normals."""


@dataclass(frozen=True)
class TestedImages:
    """Which test images were scored: position in the test set (it keys the noise), name, label, defect."""

    __test__ = False  # no pytest class, in spite of its name

    index: IntArray
    identifiers: tuple[str, ...]
    labels: IntArray
    defects: tuple[str, ...]

    def __post_init__(self) -> None:
        index = np.asarray(self.index, dtype=np.int64)
        if index.ndim != 1 or np.unique(index).size != index.size:
            raise InputError("tested images: got repeated image indices, need each image once")
        if not len(self.identifiers) == len(self.defects) == index.size:
            raise InputError(
                f"tested images: got {index.size} indices, {len(self.identifiers)} identifiers and "
                f"{len(self.defects)} defects, need one of each an image"
            )
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "labels", check_labels(self.labels, index.size))

    def __len__(self) -> int:
        """Number of images."""
        return int(self.index.size)

    @classmethod
    def of(cls, images: ImageTable, indices: Sequence[int] | IntArray | None = None) -> TestedImages:
        """The images at `indices` of a test set (default: all of them)."""
        index = np.arange(len(images.identifiers)) if indices is None else np.asarray(indices, dtype=np.int64)
        return cls(
            index,
            tuple(images.identifiers[i] for i in index),
            images.labels.cpu().numpy()[index],
            tuple(images.defects[i] for i in index),
        )


@dataclass(frozen=True)
class Condition:
    """Bounds (images,) of one subject's scores under one threat.

    `radius` is the size of the threat in `norm`, [0, 1] pixel units (0 for clean); `alpha` the one-sided
    level of each image's bound, None where nothing is random; `n` the draws behind each score (0 without
    noise); `threshold` the detector's calibrated threshold, None if there is none; `method` names the attack
    (empty in rows that were recorded before attacks had names). A `clean` condition
    has lower = upper = score. In an `attack` condition the attacked end of an image is the worst score
    reached (upper of a normal image, lower of an anomalous one) and the other end is its clean score.
    """

    subject: Subject
    images: TestedImages
    bounds: ScoreBounds
    condition: str
    norm: str
    radius: float
    n: int
    seed: int
    alpha: float | None = None
    alpha_kind: str = ""
    threshold: float | None = None
    run_id: str = ""
    method: str = ""

    def __post_init__(self) -> None:
        check_choice(self.condition, CONDITIONS, "condition")
        check_choice(
            self.norm, NORMS[:1] if self.condition == "clean" else NORMS[1:], f"norm ({self.condition})"
        )
        check_choice(self.subject.smoothing, SMOOTHINGS, "smoothing")
        check_choice(self.alpha_kind, ALPHA_KINDS, "alpha_kind")
        if self.method and self.condition != "attack":
            raise InputError(f"{self.name}: got method {self.method!r}; only attacks have one")
        lower, upper = self.bounds.lower, self.bounds.upper
        if lower.shape != (len(self.images),):
            raise InputError(f"{self.name}: got bounds of shape {lower.shape} for {len(self.images)} images")
        if self.condition == "clean" and (self.radius != 0.0 or not np.array_equal(lower, upper)):
            raise InputError(f"{self.name}: clean rows need radius 0 and lower = upper = score")
        if self.condition != "certified" and not (np.isfinite(lower).all() and np.isfinite(upper).all()):
            raise InputError(f"{self.name}: got an infinite score; only certified bounds may be infinite")

    @property
    def name(self) -> str:
        """One line that tells this condition from every other."""
        threat = f"{self.condition} {self.norm} {self.radius:g}" if self.norm else self.condition
        threat += f" by {self.method}" if self.method else ""
        return f"{self.subject.dataset}, {self.subject.label}, {threat}, n = {self.n}"

    @property
    def key(self) -> tuple[Any, ...]:
        """The values of `KEY_COLUMNS`; a missing sigma is -1 so that keys can be ordered."""
        subject = self.subject._replace(sigma=-1.0 if self.subject.sigma is None else self.subject.sigma)
        order = CONDITIONS.index(self.condition)
        return (*subject, order, self.norm, self.radius, self.n, self.alpha_kind, self.method)

    def unattacked(self) -> ScoreBounds:
        """For an attack: the clean scores, from the ends that the attacker left alone."""
        if self.condition == "certified":
            raise InputError(f"{self.name}: a certificate holds no clean scores")
        return ScoreBounds.exact(np.where(self.images.labels == 0, self.bounds.lower, self.bounds.upper))

    def take(self, index: IntArray) -> Condition:
        """The rows of the images whose `index` is among those given, in ascending order of index."""
        order = np.argsort(self.images.index)
        keep = order[np.isin(self.images.index[order], index)]
        images = TestedImages(
            self.images.index[keep],
            tuple(self.images.identifiers[i] for i in keep),
            self.images.labels[keep],
            tuple(self.images.defects[i] for i in keep),
        )
        bounds = ScoreBounds(self.bounds.lower[keep], self.bounds.upper[keep])
        return Condition(**{**self.__dict__, "images": images, "bounds": bounds})


def clean_condition(
    subject: Subject,
    images: TestedImages,
    scores: Tensor | FloatArray,
    *,
    n: int,
    seed: int,
    threshold: float | None = None,
    run_id: str = "",
) -> Condition:
    """Rows of unattacked scores (images,)."""
    return Condition(
        subject, images, ScoreBounds.exact(scores), "clean", "", 0.0, n, seed, None, "", threshold, run_id
    )


def attack_condition(
    subject: Subject,
    images: TestedImages,
    bounds: ScoreBounds,
    *,
    norm: str,
    eps: float,
    n: int,
    seed: int,
    method: str = "",
    threshold: float | None = None,
    run_id: str = "",
) -> Condition:
    """Rows of the worst scores (images,) that `method` reached with perturbations of size `eps` in `norm`."""
    return Condition(
        subject, images, bounds, "attack", norm, float(eps), n, seed, None, "", threshold, run_id, method
    )


def certified_conditions(
    subject: Subject,
    images: TestedImages,
    bounds: ScoreBounds,
    radii: Iterable[float],
    *,
    n: int,
    alpha: float | None,
    alpha_kind: str,
    seed: int,
    threshold: float | None = None,
    run_id: str = "",
) -> list[Condition]:
    """Rows of certified bounds (radii, images), one condition an L2 radius; `alpha` is the level an image."""
    sizes = [float(radius) for radius in radii]
    if bounds.lower.shape != (len(sizes), len(images)):
        raise InputError(
            f"certified rows: got bounds of shape {bounds.lower.shape}, "
            f"need ({len(sizes)} radii, {len(images)} images)"
        )
    return [
        Condition(
            *(subject, images, bounds.at(i), "certified", "l2", radius, n, seed, alpha, alpha_kind),
            *(threshold, run_id),
        )
        for i, radius in enumerate(sizes)
    ]
