"""What the script of every paper does: options of the schedule, run what is missing, write the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from certify.checks import InputError
from common.schedule import run_chains
from common.steps import Chain


def add_schedule(parser: argparse.ArgumentParser, runs: Path) -> None:
    """Add the options that say how, and where to, the chains run; `runs` is the default folder of the networks."""
    add = parser.add_argument
    add("--jobs", type=int, default=1, help="processes at a time, of one thread each where there are several")
    add("--keep_going", action="store_true", help="with --jobs: after a failure run what does not need it")
    add("--runs", type=Path, default=runs, help="folder of networks, runs and logs")
    add("--output", type=Path, help="default: results/PRESET beside this script")
    add("--report", action="store_true", help="run nothing; write the results of what is there")
    add("--chain", help=argparse.SUPPRESS)  # one chain of the plan, for a process of its own


def carry_out(
    options: argparse.Namespace,
    words: Sequence[str],
    stages: Sequence[Callable[[], Sequence[Chain]]],
    logs: Path,
    write: Callable[[], str],
) -> None:
    """Run what is missing, print the tables, and fail if anything did.

    Args:
        options: those of `add_schedule`.
        words: the arguments of the script, which start a process for each chain.
        stages: lists of chains, each made when those before it have run, since it may depend on what they chose; a
            later one repeats those before it.
        logs: folder of a log file a chain.
        write: writes the results of what is there and returns their tables.

    Raises:
        InputError: names the chains that failed or could not start.
    """
    if options.chain is not None:
        next(chain for stage in stages for chain in stage() if chain.name == options.chain).run()
        return
    failed: list[str] = []
    if not options.report:
        again = [sys.executable, sys.argv[0], *words]
        for stage in stages:
            failed = run_chains(stage(), options.jobs, logs, again, keep_going=options.keep_going)
    print(write(), end="")
    if failed:
        raise InputError(f"not complete: {', '.join(failed)}; see {logs}")
