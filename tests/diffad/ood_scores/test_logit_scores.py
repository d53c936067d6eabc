from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from certify.checks import InputError
from diffad.attacks import attack
from diffad.backbones import Backbone
from diffad.ood_scores import Energy, MaximumSoftmax, MaxLogit
from diffad.ood_scores.logit_scores import energy, negative_log_odds

logits_of_images = st.lists(st.floats(-30, 30), min_size=2, max_size=6)


@given(logits_of_images)
@settings(max_examples=50, deadline=None)
def test_log_odds_are_those_of_the_largest_probability(values: list[float]) -> None:
    logits = torch.tensor([values], dtype=torch.float64)
    p = softmax(values).max()
    found = float(negative_log_odds(logits))
    assert torch.sigmoid(torch.tensor(-found)).item() == pytest.approx(p, rel=1e-6)
    assert energy(logits, 2.0).item() == pytest.approx(-2.0 * logsumexp(np.array(values) / 2.0), abs=1e-9)


def test_scores_are_those_of_the_logits(backbone: Backbone) -> None:
    images = torch.rand(5, 1, 8, 8)
    logits = backbone.logits(images)
    torch.testing.assert_close(
        MaxLogit.from_backbone(backbone).fit(images).score(images), -logits.max(1).values
    )
    found = Energy.from_backbone(backbone, temperature=3.0).fit(images).score(images)
    torch.testing.assert_close(found, -3.0 * torch.logsumexp(logits / 3.0, 1))
    probability = torch.softmax(logits, 1).max(1).values
    found = MaximumSoftmax.from_backbone(backbone).fit(images).score(images)
    torch.testing.assert_close(torch.sigmoid(-found), probability)


def test_msp_has_a_gradient_where_the_probability_has_none(backbone: Backbone) -> None:
    """A margin of about 100: the probability is 1 in float32."""
    backbone.network.fc.weight *= 100.0
    images, labels = torch.rand(20, 1, 8, 8), np.repeat([0, 1], 10)
    plain = torch.softmax(backbone.logits(images), 1).max(1).values
    assert (plain == 1.0).float().mean() > 0.5

    def probability(images: torch.Tensor) -> torch.Tensor:
        return -torch.softmax(backbone.logits(images), 1).max(1).values

    shares = {
        name: attack(score, images, labels, norm="linf", eps=0.1, method="pgd", steps=10).info[
            "zero_gradient_share"
        ]
        for name, score in (("p", probability), ("msp", MaximumSoftmax.from_backbone(backbone).fit(images)))
    }
    assert shares["p"] > 0.2
    assert shares["msp"] < 0.01


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"temperature: got 0.0, need a finite value above 0"):
        Energy(0.0)
