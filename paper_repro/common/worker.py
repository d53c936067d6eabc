"""A process that runs chains one after another: asked for by name on stdin, answered with an exit code on stdout.

To import torch and the toolkit takes longer than many a chain; a worker does so once.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

from certify.checks import InputError
from certify.console import run as run_command

DIED = -1  # exit code of a worker that ended without an answer and without a code


class Worker:
    """The parent's side: a process that is idle or runs one chain."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], kind: Any = None) -> None:
        """Start the process; `kind` is the caller's."""
        self.kind = kind
        self.chain: str | None = None
        self._process = subprocess.Popen(words, env=dict(environment), stdin=PIPE, stdout=PIPE)

    def ask(self, chain: str) -> None:
        """Let it run a chain; a process that has gone says so when it is asked for its answer."""
        self.chain = chain
        with suppress(BrokenPipeError):
            self._in.write(f"{chain}\n".encode())
            self._in.flush()

    def answer(self) -> int | None:
        """Return the exit code of the chain once it is through, and be idle again; None: it runs."""
        code = self._process.poll()  # before the pipe, which children of a dead process may hold open
        line = self._out.readline() if select.select([self._out], [], [], 0)[0] else b""
        if not line and code is None:
            return None
        self.chain = None
        return int(line) if line else code or DIED

    @property
    def alive(self) -> bool:
        """Whether the process can be asked for more."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, in the middle of a chain too."""
        self._process.terminate()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._in.close()
        self._out.close()

    @property
    def _in(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout


def serve(run: Callable[[str], object], log_of: Callable[[str], Path]) -> None:
    """The process's side: run what is asked for until stdin ends, as it does when the parent is gone.

    Args:
        run: runs the chain of a name.
        log_of: the file to which all output of a chain is appended.

    Raises:
        InputError: stdin is a terminal.
    """
    if sys.stdin.isatty():
        raise InputError("--worker: is for the script itself, which asks for chains on stdin; leave it out")
    with suppress(KeyboardInterrupt, BrokenPipeError), os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # nobody else answers
        for line in sys.stdin:
            name = line.strip()
            print(_logged(partial(run, name), log_of(name)), file=answers, flush=True)


def _logged(work: Callable[[], object], log: Path) -> int:
    """Run with stdout and stderr, those of subprocesses too, appended to a file; return an exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        return run_command(work)
    except Exception:  # a bug belongs in the log, as an error does
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)
