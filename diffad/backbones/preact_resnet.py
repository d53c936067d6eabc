"""Pre-activation ResNets (He et al. 2016, identity mappings) as the HAT repository names their parameters."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from diffad.backbones.network import Network, apply_head


class PreActBlock(nn.Module):
    """Batch norm and ReLU before each convolution; a 1 x 1 shortcut, where there is one, of the activated input."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Return f(x) + shortcut(x)."""
        active = F.relu(self.bn1(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + shortcut


class PreActResNet(Network):
    """Four stages of pre-activation blocks behind one 3 x 3 convolution; 18 layers unless `blocks` says otherwise."""

    def __init__(
        self,
        width: int = 64,
        blocks: tuple[int, ...] = (2, 2, 2, 2),
        classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.channels, self.classes, self.dim = in_channels, classes, width * 2 ** (len(blocks) - 1)
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
        self.stages = tuple(f"layer{number}" for number in range(1, len(blocks) + 1))
        inside = width
        for number, (name, count) in enumerate(zip(self.stages, blocks, strict=True)):
            outside = width * 2**number
            first = PreActBlock(inside, outside, 1 if number == 0 else 2)
            rest = [PreActBlock(outside, outside, 1) for _ in range(count - 1)]
            self.add_module(name, nn.Sequential(first, *rest))
            inside = outside
        self.bn = nn.BatchNorm2d(self.dim)
        self.linear = nn.Linear(self.dim, classes) if classes else None

    def encode(self, images: Float[Tensor, "b c h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean of the last activated map, and the map of every stage (the last one activated)."""
        x = self.conv1(images)
        maps: dict[str, Tensor] = {}
        for name in self.stages:
            x = self.get_submodule(name)(x)
            maps[name] = x
        maps[self.stages[-1]] = F.relu(self.bn(x))
        return maps[self.stages[-1]].mean(dim=(2, 3)), maps

    def head(self, feature: Float[Tensor, "b d"]) -> Float[Tensor, "b classes"]:
        """Return the class scores of features."""
        return apply_head(self.linear, feature)
