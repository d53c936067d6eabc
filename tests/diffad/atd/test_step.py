from __future__ import annotations

import pytest
import torch
from parts import images, players

from diffad.atd.adversary import Adversary
from diffad.atd.network import Players
from diffad.atd.objective import discriminator_loss, generator_loss
from diffad.atd.optimizer import players_optimizer, watch_gradients
from diffad.atd.step import AtdStep
from diffad.attacks.threat import ThreatModel
from diffad.backbones import Backbone
from diffad.training import TrainingOptions

OPTIONS = TrainingOptions(learning_rate=1e-3, adam_beta1=0.5, adam_weight_decay=0.0)
ADVERSARY = Adversary(ThreatModel("linf", 0.1), steps=2)


def after_one_step(made: Players, extractor: Backbone, alpha: float = 0.5) -> tuple[set[str], AtdStep]:
    """Return the parameters that one step moved, and the step."""
    before = {name: value.clone() for name, value in made.named_parameters()}
    step = AtdStep(made, extractor, alpha=alpha, adversary=ADVERSARY)
    optimizer = players_optimizer(made, OPTIONS, 2e-3)
    watch_gradients(optimizer, step.saw)
    step(made, (images(0), images(1)), torch.Generator().manual_seed(0)).backward()
    optimizer.step()
    return {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}, step


@pytest.mark.parametrize("statistics", ["joint", "separate"])
def test_every_parameter_of_both_players_changes_after_one_step(statistics: str, extractor: Backbone) -> None:
    made = players(statistics=statistics)
    moved, step = after_one_step(made, extractor)
    assert moved == {name for name, _ in made.named_parameters()}
    figures = step.figures()
    assert figures["grad_norm_discriminator"] > 0
    assert figures["grad_norm_generator"] > 0
    assert (figures["lr_discriminator"], figures["lr_generator"]) == pytest.approx((1e-3, 2e-3))
    assert figures["zero_gradient_share"] == 0
    assert {
        "loss_discriminator",
        "loss_generator",
        "logit_inside",
        "logit_outside",
        "logit_generated",
    } <= set(figures)


def test_a_frozen_generator_stays_and_none_is_not_missed(extractor: Backbone) -> None:
    made = players(train_generator=False)
    moved, step = after_one_step(made, extractor)
    assert moved == {f"discriminator.{name}" for name, _ in made.discriminator.named_parameters()}
    assert "loss_generator" not in step.figures()
    made = players(has_generator=False)
    moved, step = after_one_step(made, extractor)
    assert moved == {name for name, _ in made.named_parameters()}
    assert "logit_generated" not in step.figures()


def test_the_loss_is_the_objective_of_attacked_features(extractor: Backbone) -> None:
    step = AtdStep(players(), extractor, alpha=0.25, adversary=ADVERSARY)
    found = step(step.players, (images(0), images(1)), torch.Generator().manual_seed(3))
    twin, generator = players(), torch.Generator().manual_seed(3)
    made = twin.generate(torch.randn(12, 5, generator=generator))
    signs = torch.tensor([-1.0] * 12 + [1.0] * 12)
    clean = torch.cat([images(0), images(1)])
    features = extractor.features(ADVERSARY.attack(twin.discriminator, extractor, clean, signs, generator))
    judged = twin(features[:12], features[12:], made, torch.randn(12, 5, generator=generator))
    torch.testing.assert_close(found, discriminator_loss(judged, 0.25) + generator_loss(judged))


def test_the_extractor_gets_no_gradient_and_features_may_come_ready(extractor: Backbone) -> None:
    features = extractor.features(images(0)), extractor.features(images(1))
    ready = AtdStep(players(), None, alpha=0.5, adversary=None)
    live = AtdStep(players(), extractor, alpha=0.5, adversary=None)
    one = ready(ready.players, features, torch.Generator().manual_seed(0))
    other = live(live.players, (images(0), images(1)), torch.Generator().manual_seed(0))
    torch.testing.assert_close(one, other)
    other.backward()
    assert all(parameter.grad is None for parameter in extractor.parameters())
    assert "zero_gradient_share" not in live.figures()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_part_without_weight_plays_no_part(alpha: float, extractor: Backbone) -> None:
    made = players()
    step = AtdStep(made, extractor, alpha=alpha, adversary=ADVERSARY)
    outside = images(1)[: 0 if alpha == 0 else 12]
    assert torch.isfinite(step(made, (images(0), outside), torch.Generator().manual_seed(0)))
    assert ("logit_outside" in (figures := step.figures())) == (alpha == 1)
    assert ("logit_generated" in figures) == (alpha == 0)
