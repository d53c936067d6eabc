"""The plan that chains follow from: a preset and what the command line adds, with the steps on one folder each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.steps import Step
from presets import CERTIFIED, RADII, Preset, Problem


@dataclass(frozen=True)
class Plan:
    """A preset with everything that the command line adds; `places` says what the names in braces stand for."""

    preset: Preset
    problems: dict[str, Problem]
    experiments: tuple[str, ...]
    seeds: tuple[int, ...]
    places: dict[str, str]
    runs: Path
    device: str = "cpu"

    def label(self, name: str, variant: str, seed: int) -> str:
        """Return the name of a detector, its folders and its chain."""
        return f"{name}-{variant}-{seed}"

    def detector(self, name: str, variant: str, seed: int) -> Path:
        """Return the folder of a detector."""
        return self.runs / "networks" / self.label(name, variant, seed)

    def folder(self, label: str) -> Path:
        """Return the run folder of a label."""
        return self.runs / "runs" / label

    def step(self, name: str, command: str, *argv: str) -> Step:
        """Return a step that marks its end in this plan's folder."""
        return Step(name, command, argv, self.runs / "done")

    def data(self, name: str) -> tuple[str, ...]:
        """Return the options of the images of a problem."""
        return tuple(part.format(**self.places) for part in self.problems[name].data)

    def train(self, name: str, seed: int) -> Step:
        """Return the step that trains the network of a problem."""
        argv = (*self.data(name), *self.problems[name].network, "--draws", str(self.preset.draws))
        where = ("--seed", str(seed), "--output_dir", str(self.detector(name, "network", seed)))
        return self.step(f"train-{name}-{seed}", "ddpm", *argv, *self.preset.flags, *where)

    def variant(self, name: str, variant: str, seed: int, *flags: str) -> Step:
        """Return the step that puts the network behind other options of the detector."""
        network = ("--network", str(self.detector(name, "network", seed)), "--data_seed", str(seed))
        where = ("--output_dir", str(self.detector(name, variant, seed)))
        argv = ("variant", *network, *self.data(name), *flags, *where)
        return self.step(f"variant-{self.label(name, variant, seed)}", "measure", *argv)

    def fit(self, name: str, variant: str, seed: int) -> Step:
        """Return the step that fits a baseline."""
        where = ("--seed", str(seed), "--output_dir", str(self.detector(name, variant, seed)))
        argv = ("fit", "--detector", variant, *self.data(name), *where)
        return self.step(f"fit-{self.label(name, variant, seed)}", "diffad", *argv)

    def attack(
        self, name: str, variant: str, seed: int, label: str, *options: str, limit: int | None = None
    ) -> Step:
        """Return the step that attacks the score of a detector, or what `options` say of it."""
        argv = (*self._subject(name, variant, seed, limit or self.preset.limit), *options)
        where = ("--output_dir", str(self.folder(label)))
        return self.step(f"attack-{label}", "diffad", "attack", *argv, *where)

    def certify(self, name: str, way: str, seed: int, label: str, n: int, limit: int, *options: str) -> Step:
        """Return the step that certifies the network in one way."""
        argv = (*self._subject(name, "network", seed, limit), *CERTIFIED[way], "--n", str(n), *options)
        where = ("--radii", ",".join(RADII), "--no_examples", "--output_dir", str(self.folder(label)))
        return self.step(f"certify-{label}", "certify", *argv, *where)

    def _subject(self, name: str, variant: str, seed: int, limit: int) -> tuple[str, ...]:
        where = ("--detector", str(self.detector(name, variant, seed)), *self.data(name))
        return (*where, "--data_seed", str(seed), "--limit", str(limit), "--device", self.device)
