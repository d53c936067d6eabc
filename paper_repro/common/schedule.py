"""Chains in parallel: processes of one thread each, a log file a chain, which starts once what it needs is complete."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.steps import Chain
from common.worker import Worker

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
        words: the command line of a worker, which runs the chains it is asked for (see `common.worker`).
        keep_going: with several processes: after a failure run what does not need it.

    Raises:
        InputError: fewer than one process.
    """
    if jobs < 1:
        raise InputError(f"--jobs: got {jobs}, need at least 1")
    if jobs == 1:
        run_here(chains)
        return []
    return run_parallel(chains, jobs, logs, words, keep_going=keep_going)


def run_here(chains: Sequence[Chain]) -> None:
    """Run the chains one after the other in this process, as they are listed: those that others need come first."""
    if all(chain.device == "cpu" for chain in chains):
        os.environ.update(HIDDEN)
    with splits_kept():  # many commands read the same sets
        for chain in chains:
            chain.run()


def run_parallel(
    chains: Sequence[Chain], jobs: int, logs: Path, words: Sequence[str], *, keep_going: bool
) -> list[str]:
    """Run up to `jobs` chains at a time and return those that failed or could not start.

    Args:
        chains: each waits for those that it needs.
        jobs: processes.
        logs: folder of a log file a chain.
        words: the command line of a worker.
        keep_going: after a failure run what does not need it; otherwise stop all others and exit with the tail of its
            log.
    """
    complete = {chain.name for chain in chains if chain.complete}
    waiting = [chain for chain in chains if chain.name not in complete]
    workers: list[Worker] = []
    started: dict[str, float] = {}
    failed: list[str] = []
    try:
        while _busy(workers) or any(complete.issuperset(chain.needs) for chain in waiting):
            ready = [chain for chain in waiting if complete.issuperset(chain.needs)]
            for chain in ready[: jobs - len(_busy(workers))]:
                waiting.remove(chain)
                started[chain.name] = time.monotonic()
                _worker_for(chain, workers, jobs, words).ask(chain.name)
            time.sleep(WAIT)
            for worker in _busy(workers):
                name = str(worker.chain)
                if (code := worker.answer()) is None:
                    continue
                if code:
                    failed.append(name)
                    # whatever broke it, memory or a device: the next chain gets a sound one
                    workers.remove(worker)
                    worker.end()
                    _report(name, code, logs / f"{name}.log", stop=not keep_going)
                else:
                    complete.add(name)
                took = time.monotonic() - started[name]
                rest = f"{len(_busy(workers))} running, {len(waiting)} to come"
                print(f"{name}: {took:.0f} s; {rest}", file=sys.stderr, flush=True)
    finally:
        for worker in workers:
            worker.end()
    return [*failed, *(chain.name for chain in waiting)]


def _busy(workers: Sequence[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.chain is not None]


def _worker_for(chain: Chain, workers: list[Worker], jobs: int, words: Sequence[str]) -> Worker:
    """Return an idle worker that sees the devices that the chain may; start one, in another's place if need be."""
    sees = chain.device != "cpu"
    idle = [worker for worker in workers if worker.chain is None]
    fitting = [worker for worker in idle if worker.kind == sees and worker.alive]
    if fitting:
        return fitting[0]
    if len(workers) == jobs:
        gone = min(idle, key=lambda worker: worker.alive)
        workers.remove(gone)
        gone.end()
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **({} if sees else HIDDEN)}
    workers.append(Worker(words, {**os.environ, **one_thread}, kind=sees))
    return workers[-1]


def _report(name: str, code: int, log: Path, *, stop: bool) -> None:
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:] if log.is_file() else []
    text = "\n".join([f"{name} failed with exit code {code}; the end of its log:", *tail])
    if stop:
        sys.exit(text)
    print(text, file=sys.stderr, flush=True)
