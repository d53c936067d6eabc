"""What every command shares: progress on stderr, one line an error, exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from certify.checks import InputError

T = TypeVar("T")

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def say(message: str) -> None:
    """Write one line to stderr; stdout is for results."""
    print(message, file=sys.stderr, flush=True)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar on stderr; silent without a terminal."""
    bar: Iterable[T] = tqdm(
        items, desc=label, total=total, file=sys.stderr, disable=not sys.stderr.isatty(), leave=False
    )
    yield from bar


def run(command: Callable[[], object]) -> int:
    """Run a command and turn what it raises into an exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    try:
        command()
    except (InputError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        say(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept; run the same command again to go on")
        return INTERRUPTED
    except SystemExit as stop:
        if isinstance(stop.code, str):
            say(stop.code)
        return DONE if stop.code is None else stop.code if isinstance(stop.code, int) else USAGE
    return DONE
