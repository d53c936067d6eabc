import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffad.backbones import Backbone, ResNet
from diffad.backbones.classifier import Classifier
from diffad.backbones.config import BackboneConfig
from diffad.backbones.losses import divergence, training_loss

EPS = 0.05


def classifier() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(ResNet(width=4, blocks=(1, 1), classes=3, in_channels=1), [0.5], [0.25])


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(12, 1, 8, 8, generator=generator), torch.arange(12) % 3


class Spy(nn.Module):
    """Keeps what a loss shows to the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach())
        scores: Tensor = self.network(images)
        return scores


def loss_of(method: str, helper: Backbone | None = None) -> tuple[float, Spy]:
    config = BackboneConfig(
        method=method, eps=str(EPS), attack_steps=5, helper=None if helper is None else "helper"
    )
    network = classifier()
    spy = Spy(network)
    loss = training_loss(network, config, helper)(spy, batch(), torch.Generator().manual_seed(2))
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)
    return float(loss.detach()), spy


def test_standard_training_sees_clean_images() -> None:
    _, spy = loss_of("standard")
    assert len(spy.seen) == 1
    assert torch.equal(spy.seen[0], batch()[0])


@pytest.mark.parametrize("method", ["pgd", "fgsm_rs"])
def test_attacked_images_stay_in_the_ball_and_cost_more(method: str) -> None:
    images, labels = batch()
    _, spy = loss_of(method)
    (attacked,) = spy.seen
    assert float((attacked - images).abs().max()) <= EPS + 1e-6
    network = classifier().eval()
    with torch.no_grad():
        assert F.cross_entropy(network(attacked), labels) > F.cross_entropy(network(images), labels)


def test_trades_adds_the_divergence_between_clean_and_attacked() -> None:
    images, labels = batch()
    loss, spy = loss_of("trades")
    (joint,) = spy.seen
    assert torch.equal(joint[:12], images)
    with torch.no_grad():
        clean, attacked = classifier().train()(joint).chunk(2)
        expected = F.cross_entropy(clean, labels) + 6.0 * divergence(attacked, clean).mean()
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_helper_images_lie_further_out_and_have_the_helper_s_labels() -> None:
    _, labels = batch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        network = ResNet(width=2, blocks=(1,), classes=3, in_channels=1)
    helper = Backbone(network, arch="resnet", arguments={}, resolution=8)
    loss, spy = loss_of("hat", helper)
    clean, attacked, further = spy.seen[0].chunk(3)
    torch.testing.assert_close(further - clean, 2.0 * (attacked - clean))
    with torch.no_grad():
        scores = classifier().train()(spy.seen[0]).chunk(3)
        robust = 6.0 * divergence(scores[1], scores[0]).mean()
        helping = 0.5 * F.cross_entropy(scores[2], helper.logits(attacked).argmax(1))
        expected = F.cross_entropy(scores[0], labels) + robust + helping
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    one, other = torch.randn(5, 4), torch.randn(5, 4)
    p, q = other.softmax(1), one.softmax(1)
    torch.testing.assert_close(divergence(one, other), (p * (p / q).log()).sum(1))
    assert float(divergence(one, one).abs().max()) < 1e-6
