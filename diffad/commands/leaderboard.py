"""`diffad leaderboard FOLDER...`: one page over many run folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from certify import console
from diffad.leaderboard import leaderboard_command


@dataclass(frozen=True)
class LeaderboardConfig:
    """Rank detectors within each data set and threat: certified, attacked and clean AUROC, and the gap."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of `certify` and `diffad attack`, or folders that hold some."""
    output_dir: Path = Path("runs/leaderboard")
    """Where leaderboard.html and leaderboard.md go."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        config = tyro.cli(LeaderboardConfig, prog="diffad leaderboard", args=argv, use_underscores=True)
        leaderboard_command(config.folders, config.output_dir, json=config.json)

    return console.run(command)
