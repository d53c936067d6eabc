import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from toy import toy_options, toy_training

from certify.checks import InputError
from diffad.training.log import read_log
from diffad.training.optimizers import make_optimizer

LARS = {"optimizer": "lars", "learning_rate": 0.5, "lars_momentum": 0.9, "lars_weight_decay": 0.01}


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def step_by_hand(
    weight: torch.Tensor, gradients: list[torch.Tensor], *, rate: float, decay: float, trust: float | None
) -> torch.Tensor:
    """You et al. 2017, algorithm 1: v <- m v + trust |w| / (|g| + decay |w|) (g + decay w); w <- w - rate v."""
    velocity = torch.zeros_like(weight)
    for gradient in gradients:
        scale = 1.0 if trust is None else trust * weight.norm() / (gradient.norm() + decay * weight.norm())
        velocity = 0.9 * velocity + scale * (gradient + decay * weight)
        weight = weight - rate * velocity
    return weight


@pytest.mark.parametrize("decay", [0.01, 0.0])
def test_lars_scales_weights_and_leaves_biases_and_batch_norm_to_plain_momentum(decay: float) -> None:
    pytest.importorskip("timm")
    module = network().double()
    options = toy_options("unused", **LARS | {"lars_weight_decay": decay})
    optimizer = make_optimizer(module, options)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    generator = torch.Generator().manual_seed(1)
    draws = {
        name: [torch.randn(value.shape, generator=generator, dtype=torch.float64) for _ in range(3)]
        for name, value in before.items()
    }
    for number in range(3):
        for name, parameter in module.named_parameters():
            parameter.grad = draws[name][number].clone()
        optimizer.step()
    for name, parameter in module.named_parameters():
        is_weight = name in ("0.weight", "3.weight")
        expected = step_by_hand(
            before[name],
            draws[name],
            rate=0.5,
            decay=decay if is_weight else 0.0,
            trust=1e-3 if is_weight else None,
        )
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-9, msg=name)


def test_parameters_that_are_not_trained_are_left_out() -> None:
    pytest.importorskip("timm")
    module = network()
    module[3].requires_grad_(False)
    groups = make_optimizer(module, toy_options("unused", **LARS)).param_groups
    assert [len(group["params"]) for group in groups] == [1, 3]
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]


def test_a_training_by_lars_follows_the_schedule_and_resumes_to_the_bit(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    unbroken = toy_training(toy_options(tmp_path / "unbroken", **LARS))
    short = LARS | {"lr_scheduler": "constant"}
    toy_training(toy_options(tmp_path / "long", **short))
    toy_training(toy_options(tmp_path / "short", **short, max_train_steps=5))
    toy_training(toy_options(tmp_path / "short", **short))
    for name in ("model", "optimizer", "ema"):
        long, resumed = (
            (tmp_path / run / "checkpoint-8" / f"{name}.safetensors").read_bytes()
            for run in ("long", "short")
        )
        assert long == resumed
    rates = [row["lr"] for row in read_log(tmp_path / "unbroken" / "log.jsonl")]
    assert rates[:3] == pytest.approx([0.0, 0.25, 0.5])
    assert {group["lr"] for group in unbroken.optimizer.param_groups} == {0.0}


def test_without_timm_lars_is_refused_and_nothing_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"timm is not installed; pip install 'diffad\[timm\]'"):
        toy_training(toy_options(tmp_path / "run", **LARS))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong", [{"lars_momentum": 1.0}, {"lars_trust_coefficient": 0.0}, {"lars_weight_decay": -1.0}]
)
def test_options_of_lars_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        toy_options("unused", **wrong)
