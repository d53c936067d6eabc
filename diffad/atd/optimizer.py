"""One optimiser for both players, each with a learning rate of its own, and what it says of their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from diffad.atd.network import Players
from diffad.training.options import TrainingOptions


def players_optimizer(
    players: Players, options: TrainingOptions, generator_rate: float
) -> torch.optim.Optimizer:
    """Return Adam (AdamW, whose decay is 0 by default) on the parameters that are trained.

    `options.learning_rate` is the discriminator's. A schedule scales both rates alike.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(players.discriminator.parameters()), "player": "discriminator"}
    ]
    if players.generator is not None and players.train_generator:
        trained = list(players.generator.parameters())
        groups.append({"params": trained, "player": "generator", "lr": generator_rate})
    return torch.optim.AdamW(
        groups,
        lr=options.learning_rate,
        betas=(options.adam_beta1, options.adam_beta2),
        weight_decay=options.adam_weight_decay,
        eps=options.adam_epsilon,
        fused=True,
    )


def watch_gradients(optimizer: torch.optim.Optimizer, saw: Callable[[str, Tensor], None]) -> None:
    """Show the L2 norm of each player's gradient, and its learning rate, at every step, to `saw(name, value)`."""

    def before_step(stepping: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
        for group in stepping.param_groups:
            parts = [parameter.grad.norm() for parameter in group["params"] if parameter.grad is not None]
            saw(f"grad_norm_{group['player']}", torch.stack(parts).norm())
            saw(f"lr_{group['player']}", torch.tensor(float(group["lr"])))

    optimizer.register_step_pre_hook(before_step)
