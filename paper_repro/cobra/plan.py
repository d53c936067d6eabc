"""The plan that chains follow from: a preset, what the command line adds, and the radius of each problem."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from common.steps import Step
from presets import Preset, Problem


@dataclass(frozen=True)
class Plan:
    """A preset with everything that the command line adds.

    `places` says what the names in braces of a problem's options stand for; `eps` takes the place of what is chosen or
    published.
    """

    preset: Preset
    problems: dict[str, Problem]
    experiments: tuple[str, ...]
    seeds: tuple[int, ...]
    places: dict[str, str]
    runs: Path
    device: str = "cpu"
    eps: str | None = None

    def label(self, name: str, variant: str, seed: int) -> str:
        """Return the name of a training, its folder and its chain."""
        return f"{name}-{variant}-{seed}"

    def network(self, name: str, variant: str, seed: int) -> Path:
        """Return the folder of a trained detector."""
        return self.runs / "networks" / self.label(name, variant, seed)

    def folder(self, label: str) -> Path:
        """Return the run folder of a label."""
        return self.runs / "runs" / label

    def choice(self, name: str) -> Path:
        """Return the file that says how the radius of a problem was chosen."""
        return self.runs / "choice" / f"{name}.json"

    def chosen(self, name: str) -> bool:
        """Whether the radius of a problem is one to choose."""
        return self.eps is None and self.problems[name].eps is None

    def radius(self, name: str) -> str | None:
        """Return the Linf radius that a problem is trained and attacked with; None: not chosen yet."""
        if not self.chosen(name):
            return self.eps or self.problems[name].eps
        file = self.choice(name)
        return str(json.loads(file.read_text(encoding="utf-8"))["eps"]) if file.is_file() else None

    def wanted(self, name: str, experiment: str) -> bool:
        """Whether an experiment was asked for and belongs to the problem."""
        return experiment in self.experiments and experiment in self.problems[name].experiments

    def step(self, name: str, command: str, *argv: str) -> Step:
        """Return a step that marks its end in this plan's folder."""
        return Step(name, command, argv, self.runs / "done")

    def train(self, name: str, variant: str, seed: int, *flags: str, held_out: bool = False) -> Step:
        """Return the step that trains a detector; later flags win over earlier ones."""
        problem, preset = self.problems[name], self.preset
        label = self.label(name, variant, seed)
        data = [part.format(**self.places) for part in (problem.held_out if held_out else problem.data)]
        where = ("--seed", str(seed), "--output_dir", str(self.network(name, variant, seed)))
        return self.step(f"train-{label}", "cobra", *preset.flags, *problem.flags, *data, *flags, *where)

    def attack(self, name: str, variant: str, seed: int, label: str, *options: str) -> Step:
        """Return the step that attacks the plain score of a detector; its folder knows its images."""
        argv = (
            *("--detector", str(self.network(name, variant, seed)), "--limit", str(self.preset.limit)),
            *("--device", self.device, "--smoothing", "plain", *options),
        )
        return self.step(
            f"attack-{label}", "diffad", "attack", *argv, "--output_dir", str(self.folder(label))
        )

    def certify(self, name: str, variant: str, seed: int, label: str, *options: str) -> Step:
        """Return the step that certifies a detector by plain smoothing."""
        argv = (
            *("--detector", str(self.network(name, variant, seed)), "--limit", str(self.preset.limit)),
            *("--device", self.device, "--smoothing", "input", "--n", str(self.preset.certify_n), *options),
            *("--no_baselines", "--no_examples"),
        )
        return self.step(f"certify-{label}", "certify", *argv, "--output_dir", str(self.folder(label)))
