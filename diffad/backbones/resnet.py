"""A residual network of basic blocks, of any width and depth, for small images or large ones.

With width 64, blocks (2, 2, 2, 2) and the ImageNet stem it is ResNet-18 (He et al. 2016) and has the parameter names
of torchvision's, so published files of ResNet-18 and 34 fit it as they are.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from certify.checks import InputError, check_choice
from diffad.backbones.network import Network, apply_head

Stem: TypeAlias = Literal["small", "imagenet"]
STEMS: tuple[Stem, ...] = ("small", "imagenet")


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm; the shortcut is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.downsample = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return relu(f(x) + shortcut(x))."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut)


class ResNet(Network):
    """Stem, one stage for each entry of `blocks` (each after the first halves the sides, doubles the width), mean.

    Args:
        width: channels of the first stage.
        blocks: basic blocks of each stage.
        stem: `small` is one 3 x 3 convolution at full size, for 32-pixel images (He et al. 2016, sec. 4.2);
            `imagenet` a 7 x 7 one and a max-pool, a quarter of the size.
        classes: outputs of the linear head; 0 for none.
        in_channels: 3, or 1 for grey images.
    """

    def __init__(
        self,
        width: int = 64,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        stem: Stem = "small",
        classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        check_choice(stem, STEMS, "stem")
        if width < 1 or not blocks or min(blocks) < 1 or classes < 0 or in_channels not in (1, 3):
            raise InputError(
                f"resnet: got width {width}, blocks {tuple(blocks)}, classes {classes}, in_channels {in_channels}; "
                "need at least 1, at least one block a stage, at least 0, 1 or 3"
            )
        self.stem = stem
        self.channels, self.classes, self.dim = in_channels, classes, width * 2 ** (len(blocks) - 1)
        large = stem == "imagenet"
        self.conv1 = nn.Conv2d(
            in_channels, width, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(width)
        inside = width
        self.stages = tuple(f"layer{number}" for number in range(1, len(blocks) + 1))
        for number, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            outside = width * 2**number
            first = BasicBlock(inside, outside, 1 if number == 0 else 2)
            rest = [BasicBlock(outside, outside, 1) for _ in range(count - 1)]
            self.add_module(name, nn.Sequential(first, *rest))
            inside = outside
        self.fc = nn.Linear(self.dim, classes) if classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean of the last map over its positions, and the map of every stage."""
        # channels last is the faster layout of convolutions on CPUs and GPUs; the values are the same
        x = F.relu(self.bn1(self.conv1(images.contiguous(memory_format=torch.channels_last))))
        if self.stem == "imagenet":
            x = F.max_pool2d(x, 3, 2, 1)
        maps: dict[str, Tensor] = {}
        for name in self.stages:
            x = self.get_submodule(name)(x)
            maps[name] = x
        return x.mean(dim=(2, 3)), maps

    def head(self, feature: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """Return the class scores of features."""
        return apply_head(self.fc, feature)
