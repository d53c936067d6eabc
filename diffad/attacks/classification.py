"""The attack on a classifier instead of the detector that is built on it: images are made to change their class.

It is what a classifier is usually tested with, and no attack on detection: a detector may withstand it and fall to one
on its own score. To see by how much, attack both ways and let the detector score what was found:

    target = ClassificationTarget.of(backbone.logits, images)
    found = attack(target, images, labels, norm="linf", eps="8/255", method="pgd")
    detector.score_array(found.images)

`diffad.black_box.classification_against_detection` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certify.checks import InputError
from certify.types import FloatArray
from diffad.attacks.objective import Objective, Rows, check_eval_mode
from diffad.attacks.target import batches

Logits = Callable[[Tensor], Tensor]


def against_class(logits: Float[Tensor, "b classes"], classes: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return log((1 - p) / p) of the probability p of each image's class.

    Strictly increasing in the cross-entropy -log p, so that both have the same optima, but not flat where p is 1.
    """
    own = classes[:, None]
    others = logits.scatter(1, own, -torch.inf)
    return torch.logsumexp(others, 1) - logits.gather(1, own)[:, 0]


@dataclass(frozen=True)
class Misclassification:
    """The objective: log-odds against the class of each image, by the name of the image."""

    logits: Logits
    classes: Mapping[int, int]
    name: ClassVar[str] = "classification"
    exact: ClassVar[bool] = True
    passes: ClassVar[int] = 1

    def __call__(self, points: Tensor, rows: Rows, step: int) -> Tensor:
        """Return the log-odds (b,)."""
        found = self.logits(points)
        own = torch.tensor([self.classes[name] for name in rows.names], device=found.device)
        return against_class(found, own)


@dataclass(frozen=True)
class ClassificationTarget:
    """How little an image looks like its class; an attack raises it on normals and lowers it on anomalies.

    A normal image changes its class. An anomaly, which has none, is made to look more like the class it is taken for:
    what a detector that trusts the classifier would pass.

    Args:
        logits: images (b, c, h, w) to class scores (b, classes).
        classes: number of the class of each image, by the image's name.
    """

    logits: Logits
    classes: Mapping[int, int]
    batch_size: int = 64
    device: str | torch.device = "cpu"
    noisy: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse layers in training mode."""
        check_eval_mode(self.logits)

    @classmethod
    def of(
        cls,
        logits: Logits,
        images: Float[Tensor, "n c h w"],
        classes: Sequence[int] | None = None,
        **options: Any,
    ) -> ClassificationTarget:
        """A target for these images, named 0, 1, ...; `classes` (n,) by default those that the classifier sees.

        An entry of -1 stands for an image without a class, which gets the one that the classifier sees.
        """
        if not len(images):
            raise InputError("classification: got no image, need at least one")
        blank = cls(logits, {}, **options)
        if blank.count(images) < 2:
            raise InputError(
                f"classification: logits: got {blank.count(images)} class, need at least 2 to change between"
            )
        seen = blank.seen(images)
        given = [-1] * len(images) if classes is None else [int(one) for one in classes]
        if len(given) != len(images) or max(given) >= blank.count(images) or min(given) < -1:
            raise InputError(
                f"classes: got {len(given)} from {min(given)} to {max(given)} for {len(images)} images and "
                f"{blank.count(images)} classes; need one an image, -1 for none"
            )
        chosen = [own if own >= 0 else other for own, other in zip(given, seen, strict=True)]
        return cls(logits, dict(enumerate(chosen)), **options)

    def count(self, images: Tensor) -> int:
        """Return the number of classes."""
        with torch.no_grad():
            return int(self.logits(images[:1].to(self.device)).shape[1])

    def seen(self, images: Float[Tensor, "n c h w"]) -> list[int]:
        """Return the class that the classifier gives each image."""
        found: list[int] = []
        with torch.no_grad():
            for rows in batches(len(images), self.batch_size):
                found += self.logits(images[rows].to(self.device)).argmax(1).tolist()
        return found

    def scores(self, images: Tensor, names: Sequence[int], purpose: str) -> FloatArray:
        """Return the log-odds float64 (n,) against the classes of the images of these names."""
        one = Misclassification(self.logits, self.classes)
        parts = []
        with torch.no_grad():
            for rows in batches(len(images), self.batch_size):
                shown = tuple(names[rows])
                found = one(images[rows].to(self.device), Rows(shown, (0,) * len(shown)), 0)
                parts.append(found.double().cpu())
        return torch.cat(parts).numpy()

    def objective(self, *, eot: int, seed: int, first_chunk: int, steps: int) -> Objective:
        """Return the log-odds themselves."""
        return Misclassification(self.logits, self.classes)

    def describe(self) -> dict[str, Any]:
        """Return what a result says of the target."""
        return {"target": "classification"}
