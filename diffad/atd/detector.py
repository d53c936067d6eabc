"""ATD: a discriminator, trained against an attacker, on the features of a frozen robust network.

    score(x) = -D(f(x)),    D the logit of lying in the distribution

>>> from diffad import load_detector                            # doctest: +SKIP
>>> load_detector("runs/atd/digits").score(images)              # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from certify.checks import InputError, check_choice
from certify.files import write_atomic
from diffad import folder
from diffad.atd.feature_players import DISCRIMINATOR_HIDDEN, FeatureDiscriminator
from diffad.atd.network import Discriminator
from diffad.atd.pixel_players import PixelDiscriminator
from diffad.backbones import Backbone, load_backbone
from diffad.detector import Detector

A = TypeVar("A", bound="Atd")
Space: TypeAlias = Literal["feature", "pixel"]
SPACES: tuple[Space, ...] = get_args(Space)


class Atd(Detector):
    """Minus the logit of a discriminator that was trained against an attacker, on features of a frozen network.

    Discriminator and network are trained before (`diffad.atd.train`); `fit` learns nothing from its images but their
    shape. The published score is the sigmoid of the logit, which ranks alike and saturates. Nothing is random, and the
    running statistics of batch norm treat each image by itself.

    Args:
        space: `feature` judges features of the backbone; `pixel` the image itself, the paper's ablation.
        hidden: sizes of the discriminator's layers; in pixel space channels of its stages.
    """

    name: ClassVar[str] = "atd"

    def __init__(self, space: str = "feature", hidden: Sequence[int] = DISCRIMINATOR_HIDDEN) -> None:
        super().__init__()
        self.space = check_choice(space, SPACES, "space")
        self.hidden = [int(size) for size in hidden]
        self.backbone: Backbone | None = None
        self.discriminator: nn.Module | None = None

    @classmethod
    def from_network(cls: type[A], discriminator: Discriminator, backbone: Backbone | None = None) -> A:
        """A detector of this discriminator, and of the network in front of it unless it judges pixels."""
        space = "feature" if isinstance(discriminator, FeatureDiscriminator) else "pixel"
        return cls(space=space, hidden=discriminator.hidden).attach(discriminator, backbone)

    def attach(self: A, discriminator: Discriminator, backbone: Backbone | None) -> A:
        """Use these networks, frozen and in eval mode."""
        if (backbone is None) == (self.space == "feature"):
            need = "needs the backbone" if backbone is None else "has no backbone"
            raise InputError(f"atd: space {self.space} {need}")
        kind = FeatureDiscriminator if self.space == "feature" else PixelDiscriminator
        if not isinstance(discriminator, kind):
            raise InputError(
                f"atd: space {self.space} takes a {kind.__name__}, got {type(discriminator).__name__}"
            )
        if backbone is not None and isinstance(discriminator, FeatureDiscriminator):
            if discriminator.features != backbone.dim:
                raise InputError(
                    f"atd: a discriminator of {discriminator.features} features on a backbone with {backbone.dim}"
                )
            self.backbone = backbone.eval().requires_grad_(False)
        self.discriminator = discriminator.eval().requires_grad_(False)
        return self

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments as JSON values."""
        return {"space": self.space, "hidden": self.hidden}

    def _fit(self, train: Tensor, seed: int) -> None:
        if not bool(torch.isfinite(self._score(train[:1], None)).all()):
            raise InputError("atd: the network gives NaN or infinity for training images")

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        if self.discriminator is None:
            raise InputError(
                "atd: has no network; train one (accelerate launch -m diffad.atd.train --config "
                "configs/atd/digits.yaml) and name its folder"
            )
        seen = images if self.backbone is None else self.backbone.features(images)
        logits: Tensor = self.discriminator(seen.to(next(self.discriminator.parameters()).dtype))
        return -logits.to(images.dtype)

    # ---- folder

    def _save_parts(self, directory: Path) -> None:
        if self.discriminator is None:
            raise InputError("atd: nothing to save, no network attached")
        if self.backbone is not None:
            self.backbone.save_pretrained(directory / "backbone")
        plain = {
            key: value.detach().cpu().contiguous() for key, value in self.discriminator.state_dict().items()
        }
        (directory / "discriminator").mkdir(parents=True, exist_ok=True)
        path = directory / "discriminator" / folder.TENSORS
        write_atomic(path, lambda file: save_file(plain, file, metadata={"format": "pt"}))

    def _load_parts(self, directory: Path) -> None:
        backbone = load_backbone(directory / "backbone") if self.space == "feature" else None
        with torch.random.fork_rng(devices=[]):  # the initial weights are overwritten
            discriminator = self._blank(backbone)
        tensors = folder.read_tensors(directory / "discriminator", discriminator.state_dict())
        try:
            discriminator.load_state_dict(tensors, strict=True)
        except RuntimeError as error:
            raise InputError(
                f"{directory / 'discriminator' / folder.TENSORS}: {folder.one_line(error)}"
            ) from error
        self.attach(discriminator, backbone)

    def _blank(self, backbone: Backbone | None) -> Discriminator:
        if backbone is not None:
            return FeatureDiscriminator(backbone.dim, self.hidden)
        channels, side, _ = self._require_fitted()
        return PixelDiscriminator(channels, side, self.hidden)
