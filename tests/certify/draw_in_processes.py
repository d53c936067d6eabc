"""Draw and certify as one of several processes: `draw_in_processes.py STORE RESULT SECONDS_A_BATCH`.

Without arguments: for each line of these three on stdin, do so in a fork of its own. That spares the imports.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from certify.shards import current_shard
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore

IMAGES, DRAWS = 6, 400


def detector(pause: float) -> nn.Module:
    """A network with weights of its own, that takes its time."""

    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(512, 1)
            )
            generator = torch.Generator().manual_seed(0)
            for parameter in self.layers.parameters():
                parameter.data = torch.randn(parameter.shape, generator=generator)

        def forward(self, images: Tensor) -> Tensor:
            time.sleep(pause)
            return self.layers(images)[:, 0]

    return Toy().eval()


def main(store: str, result: str, pause: str) -> None:
    """Draw, and leave scores and bounds in a file a process."""
    shard = current_shard()
    images = torch.rand(IMAGES, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    smoothed = SmoothedDetector(
        detector(float(pause)), 0.25, "input", n=DRAWS, batch_size=100, images_per_batch=2, shard=shard
    )
    kept = ScoreStore(store, {**smoothed.sampling_config(), "detector": "toy"})
    print("drawing", flush=True)
    scores = smoothed.noisy_scores(images, range(IMAGES), store=kept)
    bounds = smoothed.bounds(images, range(IMAGES), [0.0, 0.1], store=kept)
    rank, world = (shard.rank, shard.world) if shard is not None else (0, 1)
    Path(result).mkdir(parents=True, exist_ok=True)
    np.savez(Path(result) / f"{rank}.npz", scores=scores, lower=bounds.lower, upper=bounds.upper, world=world)
    if shard is not None:
        torch.distributed.destroy_process_group()


def nursery() -> None:
    """Fork a process a line, print its number, wait for it."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            main(*line.split())
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 1 else nursery()
