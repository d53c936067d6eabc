from __future__ import annotations

import pytest
import torch
from parts import images, players
from torch import Tensor, nn

from diffad.atd.adversary import Adversary, GradientCount
from diffad.attacks.threat import ThreatModel
from diffad.backbones import Backbone


class Mean(nn.Module):
    """The mean pixel as the logit."""

    def forward(self, points: Tensor) -> Tensor:
        return points.flatten(1).mean(1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normals_lose_and_open_images_gain_whatever_the_batch_holds() -> None:
    adversary, clean = Adversary(ThreatModel("linf", 0.1), steps=5), 0.2 + 0.6 * images(0)
    for signs in ([-1.0] * 12, [1.0] * 12, [-1.0, 1.0] * 6):
        upwards = torch.tensor(signs)
        moved = adversary.attack(Mean(), None, clean, upwards, generator()) - clean
        expected = 0.1 * upwards[:, None, None, None].expand_as(clean)
        torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)  # the closed form of a linear logit


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_attack_stays_within_the_threat_and_ends_worse(norm: str, extractor: Backbone) -> None:
    made, clean = players(), images(0)
    threat = ThreatModel.parse(norm, 0.2)
    upwards = torch.tensor([1.0, -1.0] * 6)
    attacked = Adversary(threat, 10).attack(made.discriminator, extractor, clean, upwards, generator())
    threat.check(attacked, clean)
    assert not attacked.requires_grad
    made.eval()
    with torch.no_grad():
        before, after = (made.discriminator(extractor.features(given)) for given in (clean, attacked))
    assert bool((upwards * (after - before) > 0).all())


def test_each_image_is_attacked_by_itself_and_the_network_stays_as_it_was(extractor: Backbone) -> None:
    made, clean, adversary = players(), images(0), Adversary(ThreatModel("linf", 0.1), steps=3)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    together = adversary.attack(made.discriminator, extractor, clean, torch.ones(12), generator())
    first = adversary.attack(made.discriminator, extractor, clean[:1], torch.ones(1), generator())
    # the start of an image depends on its place, the ascent on nothing else
    torch.testing.assert_close(together[:1], first, atol=1e-6, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert all(module.training for module in made.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in made.parameters())


def test_zero_gradients_are_counted_once_and_forgotten() -> None:
    count = GradientCount()
    count.watch(torch.tensor([0.0, 1.0, 0.0, 2.0])[:, None, None, None])
    count.watch(torch.zeros(4, 1, 2, 2))
    assert count.share() == 0.75
    assert count.share() == 0.0
    adversary = Adversary(ThreatModel("linf", 0.1), steps=4)
    adversary.attack(Mean(), None, images(0), torch.ones(12), generator(), count)
    assert (count.seen, count.share()) == (48, 0.0)
