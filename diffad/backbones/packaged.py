"""Networks of torchvision and timm behind the interface of a backbone; both with initial weights only."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torchvision.models
from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError
from diffad.backbones.network import Network
from diffad.folder import one_line


class TorchvisionResNet(Network):
    """A ResNet of torchvision by its name there (resnet18, resnet50, wide_resnet50_2, ...)."""

    def __init__(self, name: str, classes: int = 1000) -> None:
        super().__init__()
        listed = torchvision.models.list_models(module=torchvision.models)
        known = [model for model in listed if model.startswith(("resnet", "resnext", "wide_resnet"))]
        if name not in known:
            raise InputError(
                f"torchvision: got {name!r}, allowed are {', '.join(known)}; timm:NAME has the others"
            )
        if classes < 1:
            raise InputError(f"torchvision: got {classes} classes, need at least 1")
        self.model = torchvision.models.get_model(name, weights=None, num_classes=classes)
        self.channels, self.classes, self.dim = 3, classes, int(self.model.fc.in_features)

    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the pooled feature in front of `fc`, and the map of every stage."""
        model = self.model
        x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
        maps: dict[str, Tensor] = {}
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = model.get_submodule(stage)(x)
            maps[stage] = x
        return model.avgpool(x).flatten(1), maps

    def head(self, feature: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """Return the class scores of features."""
        scores: Tensor = self.model.fc(feature)
        return scores


class TimmNetwork(Network):
    """A network of timm by its name there; its pre-logits are the feature, its intermediate maps the layers.

    Vision transformers give the patch tokens of each block as a map (b, c, rows of patches, columns of patches).
    """

    def __init__(self, name: str, classes: int = 1000) -> None:
        super().__init__()
        timm = _timm()
        if not timm.is_model(name):
            raise InputError(
                f"timm: {name!r} is no model of timm {timm.__version__}; timm.list_models() lists them"
            )
        self.model: Any = timm.create_model(name, pretrained=False, num_classes=classes)
        defaults: dict[str, Any] = dict(self.model.pretrained_cfg)
        self.mean, self.std = tuple(defaults["mean"]), tuple(defaults["std"])
        self.resolution = int(defaults["input_size"][1])
        self.channels, self.classes = 3, classes
        self.dim = int(self.model.head_hidden_size)

    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return timm's pre-logits, and every intermediate map."""
        try:
            last, between = self.model.forward_intermediates(images)
        except AssertionError as error:  # a transformer takes images of one size
            raise InputError(
                f"timm: {one_line(error)}; give the backbone resolution {self.resolution}"
            ) from error
        feature: Tensor = self.model.forward_head(last, pre_logits=True)
        return feature, {f"layer{number}": part for number, part in enumerate(between, 1)}

    def head(self, feature: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """Return the class scores of features."""
        if not self.classes:
            raise InputError("backbone: has no classification head; use features")
        classifier = self.model.get_classifier()
        if not isinstance(classifier, nn.Module):
            raise InputError("timm: a distilled network has two heads on two tokens; use features")
        scores: Tensor = classifier(feature)
        return scores


def _timm() -> Any:
    if importlib.util.find_spec("timm") is None:
        raise InputError("timm is not installed; pip install 'timm>=1.0', or use a torchvision architecture")
    return importlib.import_module("timm")
