"""Scores of the logits alone: maximum softmax probability, largest logit, energy.

msp        log((1 - p) / p),  p = max_k softmax(z)_k            Hendrycks and Gimpel, ICLR 2017
max_logit  - max_k z_k                                          Hendrycks et al., ICML 2022
energy     - T log sum_k exp(z_k / T)                           Liu et al., NeurIPS 2020
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import check_positive
from certify.types import ScoreFunction
from diffad.ood_scores.on_backbone import BackboneScore


class _LogitScore(BackboneScore):
    """Nothing is fitted but the size of the images: what is unlike the classes of the network is anomalous."""

    def _fit_classes(self, train: Tensor) -> None:
        self._collect(self.logits, train)


class MaximumSoftmax(_LogitScore):
    """Log-odds against the most probable class, which rank as minus its softmax probability does.

    The probability itself is 1 in float32 from a margin of 17 on, with a gradient of exactly 0: an attack on it would
    stop where the network is sure. The log-odds, logsumexp of the other logits minus the largest, are a strictly
    increasing function of minus the probability, so that every AUROC is the same, and never flat.
    """

    name: ClassVar[str] = "msp"

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return negative_log_odds(self.logits(images)).to(images)


class MaxLogit(_LogitScore):
    """Minus the largest logit."""

    name: ClassVar[str] = "max_logit"

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return -self.logits(images).amax(1).to(images)

    def surrogates(self) -> dict[str, ScoreFunction]:
        """Return `energy`, a soft maximum: its gradient does not jump where the largest logit changes."""
        return {"energy": lambda images: energy(self.logits(images), 1.0).to(images)}


class Energy(_LogitScore):
    """Minus T times the logsumexp of the logits over T.

    Args:
        temperature: T, above 0; near 0 the score is that of `max_logit`.
    """

    name: ClassVar[str] = "energy"

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = check_positive(temperature, "temperature")

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return energy(self.logits(images), self.temperature).to(images)


def negative_log_odds(logits: Float[Tensor, "b classes"]) -> Float[Tensor, " b"]:
    """Return log((1 - p) / p) of the largest softmax probability p, without forming p."""
    largest, place = logits.max(1, keepdim=True)
    others = logits.scatter(1, place, -torch.inf)
    return torch.logsumexp(others, 1) - largest[:, 0]


def energy(logits: Float[Tensor, "b classes"], temperature: float) -> Float[Tensor, " b"]:
    """Return - T logsumexp(z / T)."""
    return -temperature * torch.logsumexp(logits / temperature, 1)
