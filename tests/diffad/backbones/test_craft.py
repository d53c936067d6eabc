import pytest
import torch
from torch import nn

from diffad.attacks.threat import ThreatModel
from diffad.backbones.craft import ascend, ball_start, constant_steps, evaluating, frozen, last

LINF, L2 = ThreatModel("linf", 0.1), ThreatModel("l2", 0.5)


def images(count: int = 64) -> torch.Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_starts_fill_the_ball_inside_the_box_and_follow_the_generator(threat: ThreatModel) -> None:
    clean = images()
    first = ball_start(clean, threat, torch.Generator().manual_seed(1))
    threat.check(first, clean)
    assert torch.equal(first, ball_start(clean, threat, torch.Generator().manual_seed(1)))
    assert not torch.equal(first, ball_start(clean, threat, torch.Generator().manual_seed(2)))
    middle = torch.full_like(clean, 0.5)  # where the box does not bind
    distance = threat.distance(ball_start(middle, threat, torch.Generator().manual_seed(1)), middle)
    assert float(distance.max()) > 0.95 * threat.eps
    if threat.norm == "linf":
        spread = (ball_start(middle, threat, torch.Generator().manual_seed(1)) - middle).std()
        assert float(spread) == pytest.approx(0.1 / 3**0.5, rel=0.03)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_ascent_of_a_linear_loss_ends_at_the_known_corner(threat: ThreatModel) -> None:
    clean = torch.full((3, 1, 6, 6), 0.5)
    slope = torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(3))
    losses = lambda x: (slope * x).sum(dim=(1, 2, 3))  # noqa: E731
    points = list(ascend(losses, clean, clean, threat, constant_steps(threat.eps, 10)))
    gain = (slope * (points[-1] - clean)).sum(dim=(1, 2, 3))
    dual = slope.abs().sum() if threat.norm == "linf" else slope.norm()
    torch.testing.assert_close(gain, (threat.eps * dual).expand(3), rtol=1e-4, atol=0.0)
    for point in points:
        threat.check(point, clean)
        assert not point.requires_grad


def test_crafting_leaves_weights_statistics_and_mode_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    clean = images(4)
    with evaluating(network):
        assert not network.training
        last(ascend(lambda x: network(x).square().sum(1), clean, clean, LINF, constant_steps(0.1, 3)))
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(RuntimeError, match="stop"), evaluating(network):
        raise RuntimeError("stop")
    assert network.training


def test_frozen_puts_every_mode_and_switch_back_after_an_error() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
    network[0].bias.requires_grad_(False)
    network[1].eval()  # one module alone in another mode

    def fail() -> None:
        with frozen(network):
            assert not any(module.training for module in network.modules())
            assert not any(parameter.requires_grad for parameter in network.parameters())
            raise RuntimeError("in the attack")

    with pytest.raises(RuntimeError, match="in the attack"):
        fail()
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, False, True, True]


def test_the_gradient_of_every_step_is_shown() -> None:
    clean, seen = images(2), []
    last(ascend(lambda x: x.square().sum((1, 2, 3)), clean, clean, LINF, [0.01, 0.02], seen.append))
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], 2 * clean)


def test_the_usual_steps_reach_two_and_a_half_radii() -> None:
    assert constant_steps(0.1, 4) == pytest.approx([0.0625] * 4)
