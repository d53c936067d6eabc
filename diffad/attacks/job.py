"""All rows of an attack, each image times each restart, searched in batches of equal make-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify.types import FloatArray
from diffad.attacks.methods import ATTACKS, Preset
from diffad.attacks.objective import GradientCount, IntArray, Objective, Rows, directions
from diffad.attacks.search import Material, Search, best_of_restarts
from diffad.attacks.store import AttackStore, Batch, collect, digest
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

    def run(self, objective: Objective, batch_size: int, store: AttackStore | None = None) -> Found:
        """Search all rows in batches of equal make-up, and keep the best restart of each image.

        With a store the batches that it holds are read, and several processes share the others.
        """
        images, restarts = np.divmod(np.arange(len(self.clean) * self.preset.restarts), self.preset.restarts)
        size = max(1, batch_size // self.eot) if self.target.noisy else batch_size
        groups = list(batches(len(images), size))
        label = f"{self.preset.method}-{self.threat.norm}-{self.threat.eps:g}"
        parts = collect(
            store,
            {**self._identity(objective), "rows_a_batch": size},
            len(groups),
            lambda place: self._batch(images[groups[place]], restarts[groups[place]], objective),
            label,
        )
        points = torch.cat([part["points"] for part in parts])
        gains = torch.cat([part["gains"] for part in parts]).numpy()
        kept, best = best_of_restarts(points, gains, images.tolist(), len(self.clean))
        trace = torch.cat([part["trace"] for part in parts]).numpy()
        by_image = trace.reshape(len(self.clean), self.preset.restarts, -1).max(axis=1)
        counts = torch.stack([part["counts"] for part in parts]).sum(0).tolist()
        return Found(kept, best, by_image, GradientCount(*counts))

    def _batch(self, images: Any, restarts: Any, objective: Objective) -> Batch:
        """Search one batch of rows: its worst points, their gains, the history and what was asked for."""
        count = GradientCount()
        search = self._search(images, restarts, objective, count)
        if self.threat.eps > 0:
            ATTACKS[self.preset.method].run(search, self.preset.steps)
        else:
            search.offer(search.clean)
        points, gains = search.finish()
        ends = torch.from_numpy(gains)
        trace = torch.stack(search.trace, 1).double().cpu() if search.trace else ends[:, None]
        counts = torch.tensor([count.gradients, count.zeros, count.queries])
        return {"points": points, "gains": ends, "trace": trace, "counts": counts}

    def _identity(self, objective: Objective) -> dict[str, Any]:
        """Return what determines the batches beside the functions, which the store's identity names."""
        material = self.material
        return {
            "preset": [
                self.preset.method,
                self.preset.steps,
                self.preset.restarts,
                self.preset.random_first,
            ],
            "threat": [self.threat.norm, self.threat.eps],
            "target": target_identity(self.target),
            "objective": [objective.name, objective.passes],
            "draws": [self.seed, self.eot, self.first_chunk],
            "images": [digest(self.clean), digest(self.starts), digest(self.labels), self.names],
            "material": [
                digest(material.references),
                digest(material.reference_scores),
                getattr(material.features, "__qualname__", type(material.features).__name__),
                sorted(material.sources),
            ],
        }

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
            self.target.objective(
                eot=self.eot, seed=self.seed, first_chunk=self.first_chunk, steps=self.preset.steps
            ),
        )


def target_identity(target: Target) -> list[Any]:
    """Return what a store has to know of a target beside the functions that it calls."""
    return [type(target).__name__, target.batch_size, str(target.device), target.describe()]
