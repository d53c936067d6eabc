"""The script of a paper whose results are levels of a smoothed classifier."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from common.levels import write_levels
from common.script import add_schedule, run_script
from common.steps import Chain


class Plan(Protocol):
    """What is run into the folder `runs`: `levels` makes the lines of the table, `chains` has what they need too."""

    @property
    def runs(self) -> Path:
        """Folder of the steps."""

    def chains(self) -> list[Chain]:
        """Return all chains."""

    def levels(self) -> list[Chain]:
        """Return those of the lines of the table, in their order."""


def parse_levels(
    argv: Sequence[str] | None, description: str | None, presets: Sequence[str], runs: Path
) -> argparse.Namespace:
    """Read the command line; `runs` is the default folder of the steps."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=tuple(presets), default="smoke")
    add_schedule(parser, runs)
    return parser.parse_args(argv)


def run_levels(
    argv: Sequence[str] | None,
    parse: Callable[[Sequence[str]], argparse.Namespace],
    plan_of: Callable[[argparse.Namespace], Plan],
    results: Path,
) -> int:
    """Run what is missing, write the levels and their table, and return the exit code."""

    def write(plan: Plan, output: Path) -> str:
        return write_levels(plan.runs, output, [chain.name for chain in plan.levels()])

    return run_script(argv, parse, plan_of, lambda plan, *_: [plan.chains], results, write)
