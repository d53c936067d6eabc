"""Chains in parallel: each a process of one thread with a log file, started once what it needs is complete."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common.steps import Chain

from certify.checks import InputError
from diffad.data import splits_kept

TAIL, WAIT = 15, 0.2  # lines of a failed log that are shown; seconds between two looks at the processes
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}  # trainings take an accelerator that they see


def run_chains(
    chains: Sequence[Chain], jobs: int, logs: Path, words: Sequence[str], *, keep_going: bool
) -> list[str]:
    """Run what is missing and return the names of chains that failed or could not start.

    Args:
        chains: as they are listed, those that others need come first.
        jobs: processes at a time; 1: all in this one.
        logs: folder of a log file a chain, for several processes.
        words: the command line that runs a single chain once `--chain NAME` is appended.
        keep_going: with several processes: after a failure run what does not need it.
    """
    if jobs < 1:
        raise InputError(f"--jobs: got {jobs}, need at least 1")
    if jobs == 1:
        run_here(chains)
        return []
    return run_parallel(chains, jobs, logs, lambda name: [*words, "--chain", name], keep_going=keep_going)


def run_here(chains: Sequence[Chain]) -> None:
    """Run the chains one after the other in this process, as they are listed: those that others need come first."""
    if all(chain.device == "cpu" for chain in chains):
        os.environ.update(HIDDEN)
    with splits_kept():  # many commands read the same sets
        for chain in chains:
            chain.run()


def run_parallel(
    chains: Sequence[Chain], jobs: int, logs: Path, command: Callable[[str], list[str]], *, keep_going: bool
) -> list[str]:
    """Run up to `jobs` chains at a time and return those that failed or could not start.

    Args:
        chains: each waits for those that it needs.
        jobs: processes.
        logs: folder of a log file a chain.
        command: from the name of a chain the words that run it.
        keep_going: after a failure run what does not need it; otherwise stop all others and exit with the tail of its
            log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    complete = {chain.name for chain in chains if chain.complete}
    waiting = [chain for chain in chains if chain.name not in complete]
    running: dict[str, subprocess.Popen[bytes]] = {}
    started: dict[str, float] = {}
    failed: list[str] = []
    try:
        while running or any(complete.issuperset(chain.needs) for chain in waiting):
            ready = [chain for chain in waiting if complete.issuperset(chain.needs)]
            for chain in ready[: jobs - len(running)]:
                waiting.remove(chain)
                running[chain.name] = _start(command(chain.name), logs / f"{chain.name}.log", chain.device)
                started[chain.name] = time.monotonic()
            time.sleep(WAIT)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                code = running.pop(name).returncode
                if code:
                    failed.append(name)
                    _report(name, code, logs / f"{name}.log", stop=not keep_going)
                else:
                    complete.add(name)
                took = time.monotonic() - started[name]
                rest = f"{len(running)} running, {len(waiting)} to come"
                print(f"{name}: {took:.0f} s; {rest}", file=sys.stderr, flush=True)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    return [*failed, *(chain.name for chain in waiting)]


def _report(name: str, code: int, log: Path, *, stop: bool) -> None:
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:]
    text = "\n".join([f"{name} failed with exit code {code}; the end of its log:", *tail])
    if stop:
        sys.exit(text)
    print(text, file=sys.stderr, flush=True)


def _start(words: list[str], log: Path, device: str) -> subprocess.Popen[bytes]:
    more = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **(HIDDEN if device == "cpu" else {})}
    with log.open("ab") as file:
        return subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **more})
