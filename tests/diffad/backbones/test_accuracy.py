import torch
from torch import Tensor, nn

from diffad.attacks.threat import ThreatModel
from diffad.backbones.accuracy import accuracy
from diffad.backbones.labelled import Labelled


class Threshold(nn.Module):
    """Class 1 where the mean pixel is above a half."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        total = self.scale * (images.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-total, total], 1)


def test_accuracy_of_a_known_margin() -> None:
    levels = torch.tensor([0.2, 0.35, 0.45, 0.55, 0.65, 0.8])
    labels = torch.tensor([0, 0, 0, 1, 1, 0])  # the last one is wrong already
    part = Labelled(levels[:, None, None, None].expand(-1, 1, 4, 4).contiguous(), labels)
    network = Threshold().train()
    found = accuracy(network, part, ThreatModel("linf", 0.1), steps=5)
    assert found == {"clean": 5 / 6, "pgd": 3 / 6}
    assert (
        accuracy(network, part, ThreatModel("l2", 0.1), steps=5)["pgd"] == 5 / 6
    )  # 4 pixels a side: mean by .025
    assert network.training
    assert network.scale.grad is None
