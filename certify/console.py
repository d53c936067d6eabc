"""What every command shares: progress on stderr, one line an error, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import TypeVar

from tqdm import tqdm

from certify.checks import InputError

T = TypeVar("T")

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def say(message: str) -> None:
    """Write one line to stderr; stdout is for results. Of several processes the first one speaks."""
    if _first():
        _write(message)


def _write(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _first() -> bool:
    """Whether this is the first of the processes that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar on stderr; silent without a terminal, and in all processes but the first."""
    bar: Iterable[T] = tqdm(
        items,
        desc=label,
        total=total,
        file=sys.stderr,
        disable=not (sys.stderr.isatty() and _first()),
        leave=False,
    )
    yield from bar


def start(target: str, words: Sequence[str]) -> int:
    """Import `module:function`, call it with the words of a command line, and return its exit code.

    Loading PyTorch takes seconds; Ctrl-C meanwhile ends as it does later, with 130 and no traceback.
    """
    module, _, name = target.partition(":")
    try:
        function: Callable[[Sequence[str]], int] = getattr(import_module(module), name)
        return function(words)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED


def run(command: Callable[[], object]) -> int:
    """Run a command and turn what it raises into an exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    try:
        command()
    except (InputError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        _write(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        say("interrupted: what was finished is kept; run the same command again to go on")
        return INTERRUPTED
    except SystemExit as stop:
        if isinstance(stop.code, str):
            _write(stop.code)
        return DONE if stop.code is None else stop.code if isinstance(stop.code, int) else USAGE
    return DONE
