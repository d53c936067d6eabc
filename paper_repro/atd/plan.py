"""The plan that chains follow from: a preset and what the command line adds, with the steps on one folder each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from common.steps import Step
from presets import Preset, Problem

ROOT = Path(__file__).parents[2]
CONFIG = os.path.relpath(ROOT / "configs" / "backbones" / "digits.yaml")


@dataclass(frozen=True)
class Plan:
    """A preset with everything that the command line adds.

    `places` says what the names in braces of a problem stand for; `given` holds for each kind of extractor its folders,
    one a seed, or the same for all.
    """

    preset: Preset
    problems: dict[str, Problem]
    experiments: tuple[str, ...]
    seeds: tuple[int, ...]
    places: dict[str, str]
    given: dict[str, tuple[str, ...]]
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

    def backbone(self, name: str, extractor: str, seed: int) -> Path:
        """Return the folder of an extractor: trained here, or given."""
        if self.problems[name].backbone is not None:
            return self.detector(name, f"backbone_{extractor}", seed)
        folders = self.given[extractor]
        return Path(folders[min(self.seeds.index(seed), len(folders) - 1)])

    def step(self, name: str, command: str, *argv: str) -> Step:
        """Return a step that marks its end in this plan's folder."""
        return Step(name, command, argv, self.runs / "done")

    def train_backbone(self, name: str, extractor: str, seed: int) -> Step:
        """Return the step that trains an extractor."""
        problem = self.problems[name]
        own = problem.robust if extractor == "robust" else ("--method", "standard")
        argv = ("--config", CONFIG, *(problem.backbone or ()), *own)
        smoke = ("--smoke",) if "--smoke" in self.preset.flags else ()
        where = ("--seed", str(seed), "--output_dir", str(self.backbone(name, extractor, seed)))
        return self.step(f"train-{self.label(name, extractor, seed)}", "train", *argv, *smoke, *where)

    def train(self, name: str, variant: str, seed: int, extractor: str, *flags: str) -> Step:
        """Return the step that trains ATD; in pixel space, which has no extractor, with its own layers."""
        problem, pixel = self.problems[name], "pixel" in flags
        backbone = problem.pixel if pixel else ("--backbone", str(self.backbone(name, extractor, seed)))
        data = ("--data", self._place(problem.data), "--protocol", "ood", "--outliers", *self._outliers(name))
        if problem.classes is not None:
            data = (*data, "--normal_class", problem.classes)
        threat = ("--norm", "linf", "--eps", problem.eps, "--validation_eps", problem.eps)
        argv = (*data, *threat, *problem.flags, *self.preset.flags, *backbone, *flags)
        where = ("--seed", str(seed), "--output_dir", str(self.detector(name, variant, seed)))
        return self.step(f"train-{self.label(name, variant, seed)}", "atd", *argv, *where)

    def fit(self, name: str, variant: str, seed: int, score: str, extractor: str) -> Step:
        """Return the step that fits a score of the classifier."""
        words = ("fit", "--detector", score, "--backbone", str(self.backbone(name, extractor, seed)))
        where = ("--seed", str(seed), "--output_dir", str(self.detector(name, variant, seed)))
        return self.step(
            f"fit-{self.label(name, variant, seed)}", "diffad", *words, *self._data(name), *where
        )

    def attack(self, name: str, variant: str, seed: int, label: str, *options: str) -> Step:
        """Return the step that attacks a detector at the radius of its problem."""
        argv = (
            *("--detector", str(self.detector(name, variant, seed)), *self._data(name)),
            *("--limit", str(self.preset.limit), "--device", self.device, "--smoothing", "plain"),
            *("--norm", "linf", "--eps", self.problems[name].eps, *options),
        )
        where = ("--output_dir", str(self.folder(label)))
        return self.step(f"attack-{label}", "diffad", "attack", *argv, *where)

    def measured(self, label: str) -> Path:
        """Return the file of a measurement."""
        return self.runs / "measures" / f"{label}.json"

    def classification(self, name: str, variant: str, seed: int) -> Step:
        """Return the step that sets an attack on the classification beside one on the detection."""
        label = self.label(name, variant, seed)
        how = ("--eps", self.problems[name].eps, "--steps", str(self.preset.steps))
        argv = (
            *(
                "classification",
                "--detector",
                str(self.detector(name, variant, seed)),
                *self._data(name),
                *how,
            ),
            *("--limit", str(self.preset.limit), "--device", self.device),
            *("--output", str(self.measured(label))),
        )
        return self.step(f"classification-{label}", "measure", *argv)

    def _data(self, name: str) -> tuple[str, ...]:
        problem = self.problems[name]
        classes = () if problem.classes is None else ("--normal_class", problem.classes)
        sets = ("--protocol", "ood", "--outliers", ",".join(self._outliers(name)))
        return ("--data", self._place(problem.data), *classes, *sets)

    def _outliers(self, name: str) -> list[str]:
        return [self._place(spec) for spec in self.problems[name].outliers]

    def _place(self, spec: str) -> str:
        return spec.format(**self.places)
