"""The players in feature space: a generator of features, and a discriminator that returns logits.

ATD's networks (its code, 1 x 1 convolutions on 512 x 1 x 1, that is linear layers), initialised as in DCGAN.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError

SLOPE = 0.2  # of LeakyReLU below zero
LATENT = 100  # length of z
GENERATOR_HIDDEN = (512, 256, 128, 256)
DISCRIMINATOR_HIDDEN = (512, 256, 128, 64)
_DEVIATION = 0.02  # of initial weights


class FeatureGenerator(nn.Module):
    """z ~ N(0, I) to a feature: linear layers with batch norm and ReLU behind all but the last.

    Args:
        features: length of the feature.
        hidden: lengths in between; the paper's code has 512, 256, 128, 256.
        latent: length of z.
    """

    def __init__(self, features: int, hidden: Sequence[int] = GENERATOR_HIDDEN, latent: int = LATENT) -> None:
        super().__init__()
        check_sizes("generator", (features, latent), hidden)
        self.latent = latent
        layers: list[nn.Module] = []
        for before, after in pairwise((latent, *hidden)):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], features))
        self.apply(initialise)

    def forward(self, z: Float[Tensor, "b z"]) -> Float[Tensor, "b f"]:
        """Return generated features."""
        features: Tensor = self.layers(z)
        return features


class FeatureDiscriminator(nn.Module):
    """A feature to the logit of lying in the distribution: linear layers without bias, LeakyReLU between them.

    Batch norm stands before it, except behind the first layer. The published network ends in a sigmoid, whose gradient
    is exactly 0 in float32 from a logit of 17 on; this one returns the logit.

    Args:
        features: length of the feature.
        hidden: lengths in between; the paper's code has 512, 256, 128, 64.
    """

    def __init__(self, features: int, hidden: Sequence[int] = DISCRIMINATOR_HIDDEN) -> None:
        super().__init__()
        check_sizes("discriminator", (features,), hidden)
        self.features, self.hidden = features, tuple(hidden)
        layers: list[nn.Module] = [nn.Linear(features, hidden[0], bias=False), nn.LeakyReLU(SLOPE)]
        for before, after in pairwise(hidden):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], 1, bias=False))
        self.apply(initialise)

    def forward(self, features: Float[Tensor, "b f"]) -> Float[Tensor, " b"]:
        """Return logits (b,), higher = more like the in-distribution."""
        logits: Tensor = self.layers(features)[:, 0]
        return logits


def initialise(module: nn.Module) -> None:
    """Draw the weights of one layer as DCGAN does: N(0, .02), in batch norm N(1, .02); biases are 0."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, _DEVIATION)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, _DEVIATION)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def check_sizes(name: str, ends: Sequence[int], hidden: Sequence[int]) -> None:
    """Refuse a network without hidden layers, or with an empty one."""
    if not hidden or min(*ends, *hidden) < 1:
        raise InputError(
            f"{name}: got hidden sizes {list(hidden)}, ends {list(ends)}; need at least one, each above 0"
        )
