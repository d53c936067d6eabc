import pytest
import torch
from torch import nn

from certify.checks import InputError
from diffad.atd import FeatureDiscriminator, FeatureGenerator


def kinds(network: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in network.layers]


def linear(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.layers if isinstance(layer, nn.Linear)]


def test_layers_are_those_of_the_published_networks() -> None:
    generator, discriminator = FeatureGenerator(512), FeatureDiscriminator(512)
    sizes = [
        [(part.in_features, part.out_features, part.bias is not None) for part in linear(network)]
        for network in (generator, discriminator)
    ]
    assert sizes[0] == [
        (100, 512, False),
        (512, 256, False),
        (256, 128, False),
        (128, 256, False),
        (256, 512, True),
    ]
    assert sizes[1] == [
        (512, 512, False),
        (512, 256, False),
        (256, 128, False),
        (128, 64, False),
        (64, 1, False),
    ]
    assert kinds(generator) == ["Linear", "BatchNorm1d", "ReLU"] * 4 + ["Linear"]
    normed = ["Linear", "BatchNorm1d", "LeakyReLU"]
    assert kinds(discriminator) == ["Linear", "LeakyReLU", *normed * 3, "Linear"]
    assert discriminator.layers[1].negative_slope == 0.2


def test_shapes_and_logits() -> None:
    generator, discriminator = FeatureGenerator(7, (4, 3), latent=5), FeatureDiscriminator(7, (6, 2))
    features = generator(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (9, 7)
    assert discriminator(features).shape == (9,)
    with torch.no_grad():
        discriminator.layers[-1].weight.mul_(1e8)
    logits = discriminator.eval()(features)
    assert float(logits.detach().abs().max()) > 1  # no sigmoid inside


def test_initial_weights_follow_dcgan() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        discriminator = FeatureDiscriminator(512)
    first, norm = discriminator.layers[0].weight.detach(), discriminator.layers[3].requires_grad_(False)
    assert float(first.std()) == pytest.approx(0.02, rel=0.02)
    assert float(first.mean()) == pytest.approx(0.0, abs=2e-4)
    assert float(norm.weight.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(norm.weight.std()) == pytest.approx(0.02, rel=0.2)
    assert not bool(norm.bias.any())


@pytest.mark.parametrize("hidden", [(), (4, 0)])
def test_empty_layers_are_refused(hidden: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="need at least one, each above 0"):
        FeatureDiscriminator(4, hidden)
    with pytest.raises(InputError, match="generator: got hidden sizes"):
        FeatureGenerator(4, hidden)
