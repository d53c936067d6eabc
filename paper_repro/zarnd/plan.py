"""A command, a chain of commands, and the plan that they follow from."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from presets import Preset, TestSet

from certify.cli import main as certify
from certify.files import write_json
from diffad.backbones.train import main as train_backbone
from diffad.cli import main as diffad


@dataclass(frozen=True)
class Step:
    """One command of the toolkit, or a measurement of `measures`; its file in `done` says that it was completed."""

    name: str
    command: str
    argv: tuple[str, ...]
    done: Path

    @property
    def complete(self) -> bool:
        """Whether it ran to its end with these very arguments."""
        file = self.done / f"{self.name}.json"
        return file.is_file() and json.loads(file.read_text(encoding="utf-8")) == list(self.argv)

    def run(self) -> None:
        """Run it unless it is complete; stop everything when it fails."""
        if self.complete:
            return
        print(f"--- {self.name}", file=sys.stderr, flush=True)
        with redirect_stdout(sys.stderr):  # stdout is for the table at the end
            code = self._main()
        if code:
            sys.exit(code)
        write_json(self.done / f"{self.name}.json", list(self.argv))

    def _main(self) -> int:
        from measures import main as measure

        mains = {"certify": certify, "diffad": diffad, "train": train_backbone, "measure": measure}
        return mains[self.command](list(self.argv))


@dataclass(frozen=True)
class Chain:
    """Steps that follow one another, and the names of the chains that have to be complete before."""

    name: str
    steps: tuple[Step, ...]
    needs: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def complete(self) -> bool:
        """Whether all steps are."""
        return all(step.complete for step in self.steps)

    def run(self) -> None:
        """Run what is missing, in this process."""
        for step in self.steps:
            step.run()


@dataclass(frozen=True)
class Plan:
    """A preset with everything that the command line adds.

    `places` says what the names in braces of a set's options stand for; `networks` holds folders of backbones that
    are given rather than trained, by kind, and `files` checkpoints to convert, with the SHA-256 of trusted ones;
    `device` is for trainings and certificates, `attack_device` for the attacks on narrow networks.
    """

    preset: Preset
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    places: dict[str, str]
    runs: Path
    device: str = "cpu"
    attack_device: str = "cpu"
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
