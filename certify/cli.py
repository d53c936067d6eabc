"""The command `certify`, for example `certify --sigma 0.25`, and the commands beside it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from certify import console
from certify.checks import InputError

# first word -> ("module:main", one line of help); each main takes the other words and returns an exit code
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": (
        "diffad.commands.certify_predict:main",
        "decide unlabelled images: normal, anomalous or abstain, with radius and price",
    ),
    "verify": (
        "diffad.commands.certify_verify:main",
        "check a run: re-derive its tables from the stored scores, redraw a share of the noise",
    ),
    "sweep": (
        "diffad.commands.certify_sweep:main",
        "choose sigma, way, score and percentile on validation data; write the winner as a config",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return run_command(words)
    return console.start("certify.cli:certify_command", words)


def certify_command(words: list[str]) -> int:
    """Certify, and return the exit code."""
    from diffad.commands.certify import certify
    from diffad.commands.certify_options import CertifyConfig
    from diffad.config import parse_config

    def command() -> None:
        description = f"{CertifyConfig.__doc__}\n{usage()}"
        certify(parse_config(CertifyConfig, words, prog="certify", description=description), words)

    return console.run(command)


def run_command(words: list[str]) -> int:
    """Run one of COMMANDS, named by the first word; each runs in one process."""
    refused = console.run(one_process)
    if refused:
        return refused
    return console.start(COMMANDS[words[0]][0], words[1:])


def usage() -> str:
    """Return what `certify --help` says after its own line: the commands behind it."""
    lines = [f"  certify {name:<8} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["", "Further commands, each with its own --help:", *lines])


def one_process() -> None:
    """Refuse to run beside copies of itself: only the main command shares its draws."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise InputError(
            f"launched as {size} processes: this command runs in one; start it without a launcher"
        )


if __name__ == "__main__":
    sys.exit(main())
