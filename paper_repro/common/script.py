"""What the script of every paper does: options of the schedule, run what is missing, write the results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import recorded
from common.schedule import run_chains
from common.steps import Chain
from common.worker import serve

from certify.checks import InputError
from certify.console import run as run_command
from diffad.data import splits_kept

Stage = Callable[[], Sequence[Chain]]


def add_schedule(parser: argparse.ArgumentParser, runs: Path) -> None:
    """Add the options that say how, and where to, the chains run; `runs` is the default folder of the networks."""
    add = parser.add_argument
    add("--jobs", type=int, default=1, help="processes at a time, of one thread each where there are several")
    add("--keep_going", action="store_true", help="with --jobs: after a failure run what does not need it")
    add("--runs", type=Path, default=runs, help="folder of networks, runs and logs")
    add("--output", type=Path, help="default: results/PRESET beside this script")
    add("--report", action="store_true", help="run nothing; write the results of what is there")
    add("--again", action="store_true", help="run also what the results hold with the same content")
    # a process that runs the chains it is asked for
    add("--worker", action="store_true", help=argparse.SUPPRESS)


def chosen(
    only: Sequence[str] | None, problems: Sequence[str], experiments: Sequence[str]
) -> list[list[str]]:
    """Return the problems and the experiments that `--only` names, in their own order; all of a kind it names none of.

    Raises:
        InputError: names a word that is neither.
    """
    words = tuple(only or ())
    unknown = [word for word in words if word not in (*problems, *experiments)]
    if unknown:
        raise InputError(f"--only: unknown {unknown[0]}; allowed are {', '.join((*problems, *experiments))}")
    return [[one for one in kind if one in words] or list(kind) for kind in (problems, experiments)]


def run_script(
    argv: Sequence[str] | None,
    parse: Callable[[Sequence[str]], argparse.Namespace],
    plan_of: Callable[[argparse.Namespace], Any],
    stages: Callable[[Any, argparse.Namespace, Path], Sequence[Stage]],
    results: Path,
    write_results: Callable[[Any, Path], str],
    draw_figures: Callable[[Path], None] | None = None,
) -> int:
    """Run what is missing of a paper, write its results, and return the exit code.

    Args:
        argv: the arguments of the script; None: those of the process.
        parse: reads them.
        plan_of: makes the plan that they ask for; it has the folder `runs`.
        stages: the lists of chains of a plan (see `carry_out`), with the options and the folder of the results.
        results: folder of the results of every preset.
        write_results: writes the results of what is there into a folder and returns their tables.
        draw_figures: draws the figures of a folder of results; None: there are none.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    options = parse(words)

    def work() -> None:
        plan = plan_of(options)
        output = options.output or results / options.preset

        def write() -> str:
            text = write_results(plan, output)
            if draw_figures is not None:
                draw_figures(output)
            return text

        carry_out(options, words, stages(plan, options, output), plan.runs / "logs", output, write)

    return run_command(work)


def carry_out(
    options: argparse.Namespace,
    words: Sequence[str],
    stages: Sequence[Stage],
    logs: Path,
    output: Path,
    write: Callable[[], str],
) -> None:
    """Run what is missing, print the tables, and fail if anything did.

    Args:
        options: those of `add_schedule`.
        words: the arguments of the script, which start the processes too.
        stages: lists of chains, each made when those before it have run, since it may depend on what they chose; a
            later one repeats those before it.
        logs: folder of a log file a chain.
        output: folder of the results; chains that it holds with the same content are not run, unless `--again` says so.
        write: writes the results of what is there and returns their tables.

    Raises:
        InputError: names the chains that failed or could not start.
    """
    if options.worker:
        with splits_kept():  # many commands read the same sets
            serve(lambda name: _chain(stages, name).run(), lambda name: logs / f"{name}.log")
        return
    failed: list[str] = []
    chains: Sequence[Chain] = ()
    known: set[str] = set()
    holder: Path | None = None
    again = [sys.executable, sys.argv[0], *words, "--worker"]
    for stage in stages:
        chains = stage()
        known = set() if options.again else recorded.recorded(output, chains)
        holder = None if options.again else recorded.holder(output, chains)
        if holder is None and not options.report:
            missing = recorded.missing(chains, known)
            failed = run_chains(missing, options.jobs, logs, again, keep_going=options.keep_going)
    if holder is not None and not options.report:
        print(f"nothing to run: {holder} holds all of it (--again runs it all the same)", file=sys.stderr)
        print((holder / recorded.TABLE).read_text(encoding="utf-8"), end="")
        return
    print(write(), end="")
    recorded.record(output, chains, known)
    if failed:
        raise InputError(f"not complete: {', '.join(failed)}; see {logs}")


def _chain(stages: Sequence[Stage], name: str) -> Chain:
    """Return the chain of a name: stages are planned anew, since a later one depends on what an earlier one chose."""
    return next(chain for stage in stages for chain in stage() if chain.name == name)
