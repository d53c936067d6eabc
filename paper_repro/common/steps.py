"""A command that is run once, and chains of such commands."""

from __future__ import annotations

import importlib
import json
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from certify.files import write_json

# Modules whose `main` takes arguments and returns an exit code; `measures` is the one beside the script that runs.
COMMANDS = {
    "certify": "certify.cli",
    "diffad": "diffad.cli",
    "train": "diffad.backbones.train",
    "atd": "diffad.atd.train",
    "cobra": "diffad.cobra.train",
    "ddpm": "diffad.diffusion.train",
    "measure": "measures",
}


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
        """Run it unless it is complete; stop everything when it fails.

        Waits for a process that runs it already: killing a script by force leaves those that it started at work, and
        whoever resumes must not write into the same folder beside them.
        """
        if self.complete:
            return
        self.done.mkdir(parents=True, exist_ok=True)
        # the system frees it when its process ends, however that is
        lock = FileLock(self.done / f"{self.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"--- {self.name}: waiting for a process that runs it already", file=sys.stderr, flush=True)
            lock.acquire()
        try:
            if not self.complete:
                self._run()
        finally:
            lock.release()

    def _run(self) -> None:
        print(f"--- {self.name}", file=sys.stderr, flush=True)
        main = importlib.import_module(COMMANDS[self.command]).main
        # manifests keep the words that repeat a command
        words, sys.argv = sys.argv, [COMMANDS[self.command], *self.argv]
        try:
            with redirect_stdout(sys.stderr):  # stdout is for the table at the end
                code = main(list(self.argv))
        finally:
            sys.argv = words
        if code:
            sys.exit(code)
        write_json(self.done / f"{self.name}.json", list(self.argv))


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
