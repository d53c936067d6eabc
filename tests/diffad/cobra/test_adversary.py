import pytest
import torch
from torch import Tensor, nn

from diffad.attacks.threat import ThreatModel
from diffad.backbones import ResNet
from diffad.cobra.adversary import Adversary
from diffad.cobra.network import CobraNetwork, Heads


def network() -> CobraNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CobraNetwork(ResNet(width=4, blocks=(1, 1), classes=0, in_channels=1), Heads(8, 6))
    made.heads.classifier.requires_grad_(False)
    return made.train()


def images(seed: int = 0, count: int = 6) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def apart(embeddings: Tensor, scores: Tensor) -> Tensor:
    """Minus the mean cosine of the two views: attacking it turns them from each other."""
    return -nn.functional.cosine_similarity(embeddings[0], embeddings[1], dim=1).mean() + 0.1 * scores.mean()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", ["random", "clean"])
def test_the_attack_stays_within_the_threat_and_raises_the_loss(norm: str, start: str) -> None:
    made, view, other = network(), images(0), images(1)
    adversary = Adversary(ThreatModel.parse(norm, 0.1), steps=8, start=start)
    attacked, gain = adversary.attack(made, view, other, apart, torch.Generator().manual_seed(0))
    assert bool((adversary.threat.distance(attacked, view) <= 0.1 + 1e-6).all())
    assert bool((attacked >= 0).all() and (attacked <= 1).all())
    assert not attacked.requires_grad
    assert float(gain) > 0
    made.eval()
    with torch.no_grad():
        fixed = made(other)[0]
        before, after = (
            float(apart(torch.stack([emb, fixed]), scores)) for emb, scores in (made(view), made(attacked))
        )
    assert after > before


def test_the_network_is_as_it_was_after_an_attack() -> None:
    made = network()
    made.encoder.bn1.eval()  # one module alone in another mode
    before = {name: value.clone() for name, value in made.state_dict().items()}
    adversary = Adversary(ThreatModel.parse("linf", 0.1), steps=2)
    adversary.attack(made, images(0), images(1), apart, torch.Generator().manual_seed(0))
    for name, value in made.state_dict().items():
        assert torch.equal(value, before[name]), name  # the statistics of batch norm too
    assert all(parameter.grad is None for parameter in made.parameters())
    assert made.training
    assert made.encoder.layer1.training
    assert not made.encoder.bn1.training
    trained = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert "encoder.conv1.weight" in trained
    assert "heads.classifier.weight" not in trained


def test_the_start_is_drawn_from_the_generator_and_the_clean_start_draws_nothing() -> None:
    made, view, other = network(), images(0), images(1)

    def attacked(start: str, seed: int) -> Tensor:
        adversary = Adversary(ThreatModel.parse("linf", 0.1), steps=1, start=start)
        return adversary.attack(made, view, other, apart, torch.Generator().manual_seed(seed))[0]

    before = torch.get_rng_state()
    assert torch.equal(attacked("random", 0), attacked("random", 0))
    assert not torch.equal(attacked("random", 0), attacked("random", 1))
    assert torch.equal(attacked("clean", 0), attacked("clean", 1))
    assert torch.equal(torch.get_rng_state(), before)
