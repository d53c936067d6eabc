"""All rows of an attack, each image times each restart, searched in batches of equal make-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.console import progress
from certify.types import FloatArray
from diffad.attacks.methods import ATTACKS, Preset
from diffad.attacks.objective import GradientCount, IntArray, Objective, Rows, directions
from diffad.attacks.search import Material, Search, best_of_restarts
from diffad.attacks.target import Target, batches
from diffad.attacks.threat import ThreatModel


@dataclass(frozen=True)
class Found:
    """The worst point of each image as the search saw it: points (n, c, h, w), gains (n,) and their history."""

    points: Tensor
    gains: FloatArray
    trace: FloatArray
    count: GradientCount

    def scores_on_the_way(self, labels: IntArray) -> FloatArray:
        """Return the largest score in the attacker's sense after each gradient or query, (n, t)."""
        return directions(labels)[:, None] * self.trace


@dataclass(frozen=True)
class Job:
    """All rows of an attack: each image times each restart."""

    target: Target
    threat: ThreatModel
    preset: Preset
    clean: Tensor
    starts: Tensor
    names: list[int]
    labels: IntArray
    seed: int
    eot: int
    first_chunk: int
    material: Material

    def run(self, objective: Objective, batch_size: int) -> Found:
        """Search all rows in batches of equal make-up, and keep the best restart of each image."""
        images, restarts = np.divmod(np.arange(len(self.clean) * self.preset.restarts), self.preset.restarts)
        size = max(1, batch_size // self.eot) if self.target.noisy else batch_size
        count, parts = GradientCount(), []
        groups = list(batches(len(images), size))
        for rows in progress(groups, f"{self.preset.method} {self.threat.norm} {self.threat.eps:g}"):
            search = self._search(images[rows], restarts[rows], objective, count)
            if self.threat.eps > 0:
                ATTACKS[self.preset.method].run(search, self.preset.steps)
            else:
                search.offer(search.clean)
            points, gains = search.finish()
            trace = torch.stack(search.trace, 1).double().cpu().numpy() if search.trace else gains[:, None]
            parts.append((points, gains, trace))
        points, gains = torch.cat([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        kept, best = best_of_restarts(points, gains, images.tolist(), len(self.clean))
        trace = np.concatenate([part[2] for part in parts])
        by_image = trace.reshape(len(self.clean), self.preset.restarts, -1).max(axis=1)
        return Found(kept, best, by_image, count)

    def _search(self, images: Any, restarts: Any, objective: Objective, count: GradientCount) -> Search:
        device = self.target.device
        names = [self.names[image] for image in images]
        clean = self.clean[torch.from_numpy(images)].to(device)
        start = self.starts[torch.from_numpy(images)].to(clean)
        for row, restart in enumerate(restarts):
            if restart or self.preset.random_first:
                key = int(restart) + int(self.preset.random_first)
                start[row] = self.threat.random_start(
                    clean[row : row + 1], names[row : row + 1], seed=self.seed, restart=key
                )[0]
        return Search(
            self.target,
            objective,
            self.threat,
            clean,
            start,
            torch.from_numpy(directions(self.labels[images])).to(clean),
            Rows(tuple(names), tuple(int(restart) for restart in restarts)),
            self.preset.steps,
            self.seed,
            self.material,
            count,
        )
