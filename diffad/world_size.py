"""How many processes work together, held against what the launcher was asked for.

Apart from `diffad.training`: a command that trains nothing has not to wait for accelerate and diffusers to load.
"""

from __future__ import annotations

import os
from pathlib import Path

from certify.checks import InputError


def check_world_size(started: int) -> None:
    """Refuse a run in which fewer processes work together than the user, or the launcher, believes."""
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if promised != started:
        raise InputError(
            f"WORLD_SIZE is {promised} but {started} process(es) work together: refusing to run apart"
        )
    asked = int(option_of(launcher_arguments(), "num_processes") or started)
    if asked > started:
        raise InputError(
            f"accelerate launch was asked for {asked} processes and started {started}; on a CPU use: "
            f"ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {asked} ..."
        )


def launcher_arguments() -> list[str] | None:
    """Return the words after `accelerate launch` if that started this process, else None.

    Read from /proc, so on other systems than Linux nothing is known and nothing is put right.
    """
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    except OSError:
        return None
    for position, word in enumerate(command[:4]):
        if word == "launch" and Path(command[position - 1]).name in ("accelerate", "accelerate.exe"):
            return command[position + 1 :]
        if Path(word).name == "accelerate-launch" or word == "accelerate.commands.launch":
            return command[position + 1 :]
    return None


def option_of(arguments: list[str] | None, name: str) -> str | None:
    """Return the value of `--name VALUE` or `--name=VALUE`, with either spelling of the hyphens."""
    for position, word in enumerate(arguments or []):
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            return value if equals else (arguments or [])[position + 1]
    return None
