"""What the scores of a classifier share: the frozen network, the classes of the training images, the folder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from certify.checks import InputError
from certify.console import progress
from diffad.backbones import Backbone, load_backbone
from diffad.detector import Detector

S = TypeVar("S", bound="BackboneScore")
_BATCH = 64


class BackboneScore(Detector):
    """A score read off the logits or the features of a frozen classifier.

    The network is trained by `diffad.backbones.train` on labelled images and stays as it is. The attack surface is the
    image given to `score`, at its own size. Images may lie on another device than the network.

    A subclass writes `_fit_classes` and `_score`. Where it needs to know the class of a training image, that is the one
    given to `fit_labelled`; `fit` alone takes the class that the network sees (`fit_info["labels_given"]` says which).
    """

    needs_head: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.backbone: Backbone | None = None
        self._given: tuple[str, ...] | None = None

    @classmethod
    def from_backbone(cls: type[S], backbone: Backbone, **options: Any) -> S:
        """A detector on this network, frozen; call `fit` or `fit_labelled` next."""
        return cls(**options).attach(backbone)

    def attach(self: S, backbone: Backbone) -> S:
        """Use this network, frozen and in evaluation mode; refuse one without the head that the score reads."""
        if self.needs_head and backbone.classes < 2:
            raise InputError(
                f"{self.name}: the backbone has {backbone.classes} logits, need at least 2; train a classifier by "
                "`accelerate launch -m diffad.backbones.train`"
            )
        self.backbone = backbone.eval().requires_grad_(False)
        return self

    def fit_labelled(self: S, train: Float[Tensor, "n c h w"], classes: Sequence[str], **options: Any) -> S:
        """Fit on normal images with the name of the class of each; `options` as those of `fit`."""
        if len(classes) != len(train):
            raise InputError(
                f"{self.name}: got {len(classes)} classes for {len(train)} images; need one name an image"
            )
        self._given = tuple(str(name) for name in classes)
        try:
            return self.fit(train, **options)
        finally:
            self._given = None

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the class scores in front of the softmax, where the network is; differentiable."""
        return self._network().logits(self._placed(images))

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """Return the features in front of the head, where the network is; differentiable."""
        return self._network().features(self._placed(images))

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the logits by name; their numbers where the network does not say."""
        return self._network().class_names

    @abstractmethod
    def _fit_classes(self, train: Tensor) -> None:
        """Set the fitted buffers from checked images; runs without gradients."""

    def _fit(self, train: Tensor, seed: int) -> None:
        self._network()
        self.fit_info["labels_given"] = int(self._given is not None)
        self._fit_classes(train)

    def _seen_classes(self, train: Tensor) -> tuple[Int[Tensor, " n"], tuple[str, ...]]:
        """Return the class number (n,) of each training image, and the names of the numbers.

        Of noisy copies (`fit(noise_sigma=...)`), which come image after image, round after round, each has the class
        of its image.
        """
        if self._given is not None:
            names = tuple(sorted(set(self._given)))
            number = {name: place for place, name in enumerate(names)}
            labels = torch.tensor([number[name] for name in self._given])
            return labels.repeat(len(train) // len(labels)), names
        if self._network().classes < 2:
            raise InputError(
                f"{self.name}: the backbone has no logits to tell classes by; give them to fit_labelled"
            )
        return self._collect(self.logits, train).argmax(1).cpu(), self.class_names

    def _collect(self, function: Any, images: Tensor) -> Tensor:
        """Return what the network says of many images, float64 and finite, batch by batch."""
        batches = progress(
            torch.split(images, _BATCH), "normals through the network", -(-len(images) // _BATCH)
        )
        found = torch.cat([function(batch).double() for batch in batches])
        if not bool(torch.isfinite(found).all()):
            raise InputError(f"{self.name}: the backbone gives NaN or infinite values of training images")
        if self.backbone is not None and len(found) > 1 and bool((found == found[0]).all()):
            raise InputError(f"{self.name}: the backbone answers all images alike; were its weights loaded?")
        return found

    def _network(self) -> Backbone:
        if self.backbone is None:
            raise InputError(
                f"{self.name}: has no backbone; use {type(self).__name__}.from_backbone(load_backbone(FOLDER)), or "
                f"`diffad fit --detector {self.name} --backbone FOLDER`"
            )
        return self.backbone

    def _placed(self, images: Tensor) -> Tensor:
        """Return images where the network is; float32 becomes float64 for a network in float64."""
        weights = next(self._network().network.parameters())
        return images.to(weights.device, torch.promote_types(images.dtype, weights.dtype))

    # ---- folder

    def _save_parts(self, directory: Path) -> None:
        self._network().save_pretrained(directory / "backbone")

    def _load_parts(self, directory: Path) -> None:
        self.attach(load_backbone(directory / "backbone"))
