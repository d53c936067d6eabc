"""The ResNet-18 of helper-based adversarial training (Rade and Moosavi-Dezfooli 2022), as RobustBench publishes it.

No generic pre-activation ResNet-18: Swish in place of ReLU, the padding of TensorFlow's SAME at stride 2 (nothing
left and above, one pixel right and below), and 3 x 3 shortcuts of the input before its activation.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffad.backbones.network import Network, apply_head


class HatBlock(nn.Module):
    """conv(silu(bn(conv(silu(bn(x)))))) + shortcut(x), padded as SAME."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.padding = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        self.batchnorm_0 = nn.BatchNorm2d(inside)
        self.conv_2d_1 = nn.Conv2d(inside, outside, 3, stride, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(outside)
        self.conv_2d_2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.shortcut = nn.Conv2d(inside, outside, 3, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return f(x) + shortcut(x)."""
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(F.pad(x, self.padding))
        out = self.conv_2d_1(F.pad(F.silu(self.batchnorm_0(x)), self.padding))
        residual: Tensor = self.conv_2d_2(F.silu(self.batchnorm_1(out)))
        return residual + shortcut


class HatResNet(Network):
    """Four stages of `HatBlock` behind one 3 x 3 convolution; the last map is normalised, activated and averaged."""

    def __init__(
        self,
        width: int = 64,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.channels, self.classes, self.dim = in_channels, classes, width * 2 ** (len(blocks) - 1)
        self.conv_2d = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.stages = tuple(f"layer_{number}" for number in range(len(blocks)))
        inside = width
        for number, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            outside = width * 2**number
            first = HatBlock(inside, outside, 1 if number == 0 else 2)
            rest = [HatBlock(outside, outside, 1) for _ in range(count - 1)]
            self.add_module(name, nn.Sequential(first, *rest))
            inside = outside
        self.batchnorm = nn.BatchNorm2d(self.dim)
        # in the files this layer is called `logits`; so is the method of a backbone, on another object
        self.logits = nn.Linear(self.dim, classes) if classes else None

    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean of the last activated map, and the map of every stage (the last one activated)."""
        x = self.conv_2d(images)
        maps: dict[str, Tensor] = {}
        for name in self.stages:
            x = self.get_submodule(name)(x)
            maps[name] = x
        maps[self.stages[-1]] = F.silu(self.batchnorm(x))
        return maps[self.stages[-1]].mean(dim=(2, 3)), maps

    def head(self, feature: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """Return the class scores of features."""
        return apply_head(self.logits, feature)
