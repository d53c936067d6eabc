"""A frozen network that turns images into features.

>>> import torch
>>> from diffad.backbones import Backbone, ResNet
>>> backbone = Backbone(ResNet(width=4, blocks=(1, 1)), arch="resnet", arguments={"width": 4, "blocks": [1, 1]})
>>> backbone.features(torch.rand(5, 1, 32, 32)).shape
torch.Size([5, 8])
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from certify.checks import InputError
from diffad import folder
from diffad.backbones import store
from diffad.backbones.architectures import build_network
from diffad.backbones.network import Network


class Backbone(nn.Module):
    """Images in [0, 1] to features, by a network that is never trained further.

    Normalisation and resizing are inside. The surface of an attack is what `features` is given: images of another
    size than `resolution` are resized here (bilinear with antialiasing, differentiable), so a budget counts at the
    size of the given images, never at that of the network. Always in evaluation mode and without gradients to the
    weights; each image is treated by itself, nothing is random, and values outside [0, 1] are neither clipped nor
    refused (a clamp would hide gradients from an attack, and noise leaves the box).

    Args:
        network: the network, whose weights become this backbone's own.
        arch: its name for `build_network`, stored in the folder.
        arguments: its arguments there, JSON values.
        mean: subtracted from each channel of images in [0, 1].
        std: divides each channel after that.
        resolution: height and width of the images that the network was trained on.
        facts: where it comes from (training, source, sha256, claims about robustness), as text and numbers: carried
            along and shown, never believed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: Network,
        *,
        arch: str,
        arguments: Mapping[str, Any],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        resolution: int = 32,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, network.channels):
                raise InputError(
                    f"{name}: got {len(values)} values for {network.channels} channels; need 1 or as many"
                )
        if not all(value > 0 for value in std) or resolution < 1:
            raise InputError(f"std, resolution: got {tuple(std)}, {resolution}; need values above 0")
        self.network = network
        self.arch, self.arguments = arch, dict(arguments)
        self.dim, self.channels, self.classes = network.dim, network.channels, network.classes
        self.resolution = resolution
        self.facts = dict(facts or {})
        for name, values in (("mean", mean), ("std", std)):
            filled = tuple(values) * (network.channels // len(values))
            self.register_buffer(name, torch.tensor(filled)[:, None, None], persistent=False)
        self._mean, self._std = [float(value) for value in mean], [float(value) for value in std]
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: batch statistics would make a feature depend on the other images of a batch."""
        super().train(False)
        return self

    def features(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b dim"]:
        """Return one feature an image, in the dtype of `images`; differentiable."""
        return self.network.encode(self._prepare(images))[0].to(images.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Return `features(images)`."""
        return self.features(images)

    def layers(self, images: Float[Tensor, "b c h w"]) -> dict[str, Tensor]:
        """Return the maps (b, c', h', w') of every stage by name, first to last, in the dtype of `images`."""
        maps = self.network.encode(self._prepare(images))[1]
        return {name: part.to(images.dtype) for name, part in maps.items()}

    def logits(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Return the class scores of images; `InputError` where the network has no classification head."""
        scores: Tensor = self.network(self._prepare(images))
        return scores.to(images.dtype)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the logits by name; their numbers where the network does not say."""
        names = self.facts.get("classes")
        known = isinstance(names, list) and len(names) == self.classes
        return tuple(map(str, names if known else range(self.classes)))  # type: ignore[arg-type]

    def lipschitz(self, image_shape: Sequence[int]) -> float | None:
        """Return a proven L2 Lipschitz constant of `features` on such images, [0, 1] pixel units; None without a proof.

        The constant of the network over the smallest `std`, rounded up to a multiple of 2^-30, which hides in what
        order a machine added. For images (channel, height, width) that are resized or repeated over channels on the
        way in, or where weights are not finite, nothing is proved.
        """
        constant = self.network.lipschitz()
        native = (self.channels, self.resolution, self.resolution)
        if constant is None or not math.isfinite(constant) or tuple(image_shape) != native:
            return None
        return math.ceil(constant / float(self.std.min()) * (1 + 2.0**-51) * 2.0**30) / 2.0**30

    def config(self) -> dict[str, Any]:
        """Return everything but the weights as JSON values; `facts` play no part in what is computed."""
        return {
            "arch": self.arch,
            "arguments": self.arguments,
            "mean": self._mean,
            "std": self._std,
            "resolution": self.resolution,
            "facts": self.facts,
        }

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over configuration without facts, and weights: the identity of the feature."""
        config = {key: value for key, value in self.config().items() if key != "facts"}
        return folder.fingerprint(config, self.state_dict())

    def save_pretrained(self, directory: Path | str) -> None:
        """Write config.json, model.safetensors and README.md into a folder; replaces an older one there."""
        store.write(Path(directory), self.config(), self.fingerprint(), self.state_dict())

    @classmethod
    def from_pretrained(cls, directory: Path | str) -> Backbone:
        """Load a folder that `save_pretrained` wrote; strict about names, shapes, dtypes and the fingerprint."""
        directory = Path(directory)
        config = store.read_config(directory)
        with torch.random.fork_rng(
            devices=[]
        ):  # the initial weights are overwritten, so their draws are nobody's
            network = build_network(config["arch"], config["arguments"])
        try:
            values = {key: config[key] for key in store.VALUES if key not in ("arch", "arguments")}
            backbone = cls(network, arch=config["arch"], arguments=config["arguments"], **values)
        except (TypeError, ValueError) as error:
            raise InputError(f"{directory / folder.CONFIG}: {folder.one_line(error)}") from error
        store.load_tensors(backbone, directory)
        if backbone.fingerprint() != config["fingerprint"]:
            raise InputError(
                f"{directory}: {folder.CONFIG} and the tensors beside it do not belong together, or were "
                "changed since; convert or train the backbone again"
            )
        return backbone

    def _prepare(self, images: Tensor) -> Tensor:
        """Return images as the network wants them: its channels, its size, its dtype, normalised once."""
        if images.ndim != 4 or images.shape[1] not in (1, self.channels) or not images.is_floating_point():
            raise InputError(
                f"backbone: got images {tuple(images.shape)} of {images.dtype}, need floating point (batch, "
                f"{self.channels} channels{' or 1' if self.channels > 1 else ''}, height, width)"
            )
        x = images.to(next(self.network.parameters()).dtype)
        if tuple(x.shape[2:]) != (self.resolution, self.resolution):
            side = (self.resolution, self.resolution)
            x = F.interpolate(x, size=side, mode="bilinear", align_corners=False, antialias=True)
        return (x.expand(-1, self.channels, -1, -1) - self.mean) / self.std


def load_backbone(directory: Path | str) -> Backbone:
    """Return the backbone in a folder."""
    return Backbone.from_pretrained(directory)


def save(backbone: Backbone, directory: Path | str) -> None:
    """Write a backbone into a folder."""
    backbone.save_pretrained(directory)
