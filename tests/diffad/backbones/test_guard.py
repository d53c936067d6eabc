import pytest
import torch
from torch import Tensor, nn

from diffad.backbones.classifier import Classifier, Guard
from diffad.backbones.config import BackboneConfig
from diffad.backbones.guard import fast_attack

CONFIG = BackboneConfig(
    eps="0.1", guard_every=2, guard_images=16, guard_steps=10, guard_batches=3, guard_gap=0.3
)


class Linear(Classifier):
    """Robust accuracy is the same under one step and many: what a healthy network looks like to the guard."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.guard = Guard()
        self.register_buffer("mean", torch.zeros(1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        total = images.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-total, total], 1)


class Masked(Linear):
    """The loss falls again at the ends of the ball: one long step passes the hill that short steps climb."""

    def forward(self, images: Tensor) -> Tensor:
        bump = torch.exp(-((images - 0.55) / 0.015).square()).mean(dim=(1, 2, 3))
        slope = 0.05 * images.mean(dim=(1, 2, 3))
        total = 0.3 - bump - slope
        return torch.stack([total, -total], 1)


def batch() -> tuple[Tensor, Tensor]:
    return torch.full((32, 1, 4, 4), 0.5), torch.zeros(32, dtype=torch.int64)


def test_a_robust_network_raises_no_alarm() -> None:
    network = Linear()
    images, labels = torch.full((32, 1, 4, 4), 0.2), torch.zeros(32, dtype=torch.int64)
    for number in range(6):
        fast_attack(network, images, labels, CONFIG, torch.Generator().manual_seed(number))
    assert {name: int(value) for name, value in network.guard.named_buffers()} == {
        "batches": 6,
        "left": 0,
        "strong": 0,
        "alarms": 0,
    }


def test_an_alarm_switches_to_pgd_for_a_stretch(capsys: pytest.CaptureFixture[str]) -> None:
    network = Masked()
    images, labels = batch()
    kept = []
    for number in range(6):
        attacked = fast_attack(network, images, labels, CONFIG, torch.Generator().manual_seed(number))
        kept.append(float((network(attacked).argmax(1) == labels).float().mean()))
    assert kept[1] - kept[2] > 0.3, "one step misses what many find"
    counts = {name: int(value) for name, value in network.guard.named_buffers()}
    assert counts == {"batches": 6, "left": 3, "strong": 3, "alarms": 2}
    assert "catastrophic overfitting at batch 2" in capsys.readouterr().err


def test_one_step_is_wong_s() -> None:
    network = Linear()
    images, labels = batch()
    config = BackboneConfig(eps="0.1", guard_every=100)
    attacked = fast_attack(network, images, labels, config, torch.Generator().manual_seed(0))
    uniform = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    start = images + 0.1 * (2.0 * uniform - 1.0)
    expected = (start + 0.125).clamp(0.4, 0.6)  # class 0 loses where pixels rise
    torch.testing.assert_close(attacked, expected)
