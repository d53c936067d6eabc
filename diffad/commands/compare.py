"""`diffad compare RUN...`: certified against attacked AUROC of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from certify import console
from diffad.compare import compare_command


@dataclass(frozen=True)
class CompareConfig:
    """Join runs on one data set: table, figure and page of certified against attacked AUROC."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of `certify` and `diffad attack`."""
    output_dir: Path = Path("runs/compare")
    """Where compare.html, compare.json and compare.png go."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        config = tyro.cli(CompareConfig, prog="diffad compare", args=argv, use_underscores=True)
        compare_command(config.runs, config.output_dir, json=config.json)

    return console.run(command)
