import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.backbones import Backbone, Network
from diffad.backbones.displacement import ROBUST_RATIO, displacement_ratio, feature_displacement


class LinearFeatures(Network):
    """f(x) = gain * (x_1, ..., x_d): the largest displacement is known in both norms."""

    def __init__(self, gain: float, used: int) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))
        self.dim, self.channels, self.classes, self.used = used, 1, 0, used

    def encode(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self.gain * images.flatten(1)[:, : self.used], {}

    def head(self, feature: Tensor) -> Tensor:
        raise NotImplementedError


class Averaging(LinearFeatures):
    """Every feature is pulled towards the mean pixel: what different images share moves, what parts them does not."""

    def encode(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        side = (images.flatten(1)[:, : self.used] - 0.5).sign()
        return side + 0.01 * images.flatten(1)[:, : self.used], {}


def backbone(network: Network) -> Backbone:
    return Backbone(network, arch="test", arguments={}, resolution=4)


def images(count: int = 8) -> Tensor:
    return 0.3 + 0.4 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("norm", "eps", "expected"), [("linf", "1/10", 3.0 * 0.1 * 9**0.5), ("l2", 0.2, 3.0 * 0.2)]
)
def test_displacement_of_a_linear_feature_is_known(norm: str, eps: float | str, expected: float) -> None:
    found = feature_displacement(backbone(LinearFeatures(3.0, 9)), images(), norm, eps, 20)
    assert float(found.distances.max()) <= expected * (1 + 1e-5)
    torch.testing.assert_close(found.distances, torch.full((8,), expected), rtol=0.03, atol=0.0)
    spread = torch.pdist(3.0 * images().flatten(1)[:, :9].double()).mean()
    assert found.spread == pytest.approx(float(spread), rel=1e-5)
    assert found.relative == pytest.approx(expected / float(spread), rel=0.03)


def test_the_ratio_is_free_of_scale_and_tells_a_robust_twin() -> None:
    standard, scaled = backbone(LinearFeatures(1.0, 16)), backbone(LinearFeatures(50.0, 16))
    x = images()
    assert displacement_ratio(scaled, standard, x, "linf", 0.02, 10) == pytest.approx(1.0, rel=1e-3)
    x = torch.where(x > 0.5, x + 0.1, x - 0.1)  # no pixel can cross the half
    robust = backbone(Averaging(1.0, 16))
    assert displacement_ratio(robust, standard, x, "linf", 0.02, 10) > ROBUST_RATIO
    assert displacement_ratio(standard, robust, x, "linf", 0.02, 10) < 1 / ROBUST_RATIO


def test_what_cannot_be_measured_is_named() -> None:
    network = backbone(LinearFeatures(1.0, 4))
    with pytest.raises(InputError, match="gives all images the same feature"):
        feature_displacement(backbone(LinearFeatures(0.0, 4)), images(), "linf", 0.1, 2)
    with pytest.raises(InputError, match="steps, images: got 2, 1"):
        feature_displacement(network, images(1), "linf", 0.1, 2)
    with pytest.raises(InputError, match="norm: got 'l1'"):
        feature_displacement(network, images(), "l1", 0.1, 2)
    with pytest.raises(InputError, match="moved no feature"):
        displacement_ratio(network, network, images(), "linf", 0, 2)
