"""`diffad report RUN`: one self-contained HTML page about a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from certify import console
from diffad.report import report_command


@dataclass(frozen=True)
class ReportConfig:
    """Draw the figures of a run and write report.html beside them."""

    run: Annotated[Path, tyro.conf.Positional]
    """Run folder of `certify` or `diffad attack`."""
    json: bool = False
    """Print one JSON object."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        config = tyro.cli(ReportConfig, prog="diffad report", args=argv, use_underscores=True)
        report_command(config.run, json=config.json)

    return console.run(command)
