"""A training small enough for tests; as a script it trains once for each JSON object given."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffad.training import BatchLoss, Figures, Training, TrainingOptions, run, start_run


def toy_network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.25), nn.Linear(8, 4))


def toy_loss(model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
    (rows,) = batch
    noisy = rows + 0.1 * torch.randn(rows.shape, generator=generator, device=rows.device)
    return nn.functional.mse_loss(model(noisy), rows)


def toy_options(folder: Path | str, **changes: Any) -> TrainingOptions:
    base = {
        "output_dir": str(folder),
        "max_train_steps": 8,
        "train_batch_size": 6,
        "learning_rate": 0.01,
        "lr_warmup_steps": 2,
        "checkpointing_steps": 4,
        "logging_steps": 1,
        "checkpoints_total_limit": None,
    }
    return TrainingOptions(**{**base, **changes})


def toy_training(
    options: TrainingOptions, batch_loss: BatchLoss = toy_loss, figures: Figures | None = None
) -> Training[nn.Module]:
    rows = torch.rand(10, 4, generator=torch.Generator().manual_seed(3))
    config = asdict(options)
    accelerator, checkpoint = start_run(options, config)
    training = Training.prepare(
        accelerator, toy_network(), (rows,), options, config=config, checkpoint=checkpoint
    )
    run(training, batch_loss, config=config, figures=figures)
    return training


if __name__ == "__main__":
    for text in sys.argv[1:]:
        training = toy_training(toy_options(**json.loads(text)))
        weights = torch.cat([p.detach().flatten() for p in training.module.parameters()])
        everyone = training.accelerator.gather(weights[None])
        if training.accelerator.is_main_process:
            world_size = training.accelerator.num_processes
            spread = float((everyone - everyone[:1]).abs().max())
            print(json.dumps({"world_size": world_size, "spread": spread}))
    training.accelerator.end_training()
