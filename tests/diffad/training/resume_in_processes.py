"""As one of several processes, train to the end, then again from the middle: `FOLDER`.

The loss reads batch statistics before the network's forward pass, as an attack on the bare network does.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from toy import toy_options

from diffad.backbones.craft import evaluating
from diffad.training import Training, run, start_run


def train(folder: Path, **changes: Any) -> None:
    options = toy_options(folder, max_train_steps=4, checkpointing_steps=2, **changes)
    config = asdict(options)
    accelerator, checkpoint = start_run(options, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    rows = torch.rand(24, 4, generator=torch.Generator().manual_seed(3))
    training = Training.prepare(accelerator, network, (rows,), options, config=config, checkpoint=checkpoint)

    def loss(model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        (inputs,) = batch
        with torch.no_grad(), evaluating(network):
            moved = inputs + 0.1 * network(inputs)
        return nn.functional.mse_loss(model(moved), inputs)

    run(training, loss, config=config)


if __name__ == "__main__":
    unbroken, resumed = (Path(sys.argv[1]) / name for name in ("unbroken", "resumed"))
    train(unbroken)
    train(resumed, resume_from_checkpoint=str(unbroken / "checkpoint-2"))
