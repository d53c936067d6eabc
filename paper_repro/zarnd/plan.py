"""What the steps of a preset follow from: its networks, test sets and devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from common.steps import Step
from presets import Preset, TestSet


@dataclass(frozen=True)
class Plan:
    """A preset with everything that the command line adds.

    `places` says what the names in braces of a set's options stand for; `networks` holds folders of backbones that
    are given rather than trained, by kind, and `files` checkpoints to convert, with the SHA-256 of trusted ones;
    `device` is for trainings and certificates, `attack_device` for the attacks on narrow networks; `checks` go with the
    ensemble, as `diffad attack --checks` has them.
    """

    preset: Preset
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    places: dict[str, str]
    runs: Path
    device: str = "cpu"
    attack_device: str = "cpu"
    checks: str = "small"
    networks: dict[str, Path] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def backbone(self, family: str, kind: str, seed: int) -> Path:
        """Return the folder of a backbone."""
        if kind in self.networks:
            return self.networks[kind]
        return self.runs / f"backbone-{family}-{kind}-{seed}"

    def sets(self, seed: int) -> dict[str, TestSet]:
        """Return the test sets that the backbones of this seed look at."""
        chosen = {name: self.preset.sets[name] for name in self.names if name in self.preset.sets}
        first = seed == self.seeds[0]
        return {name: one for name, one in chosen.items() if first or one.all_seeds}

    def device_for(self, one: TestSet, *, attack: bool = False) -> str:
        """Return the device of a network: the smallest ones stay on the CPU, where a GPU does not pay."""
        if one.family == "digits":
            return "cpu"
        return self.attack_device if attack and one.family == "cifar10" else self.device

    def step(self, name: str, command: str, *argv: str) -> Step:
        """Return a step that marks its end in this plan's folder."""
        return Step(name, command, argv, self.runs / "done")

    def folder(self, label: str) -> Path:
        """Return the run folder of a label."""
        return self.runs / "runs" / label
