"""Shares of the work, and real processes: their results must be those of one, to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from certify.checks import InputError
from certify.shards import Shard, current_shard

SCRIPT = Path(__file__).with_name("draw_in_processes.py")
ROOT = Path(__file__).parents[2]
LAUNCHER = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1"]
QUIET = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def start(*arguments: object, processes: int = 1) -> subprocess.Popen[str]:
    launcher = [*LAUNCHER, *QUIET, "--num_processes", str(processes)] if processes > 1 else [sys.executable]
    environment = {key: value for key, value in os.environ.items() if key not in ("WORLD_SIZE", "RANK")}
    return subprocess.Popen(
        [*launcher, str(SCRIPT), *map(str, arguments)],
        stdin=subprocess.PIPE,
        env={**environment, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a test that fails can end what it started
    )


def finish(process: subprocess.Popen[str]) -> None:
    try:
        _, errors = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors


def results(folder: Path) -> list[dict[str, np.ndarray]]:
    found = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as file:
            found.append(dict(file))
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What one process finds that is never interrupted."""
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder / "store", folder / "result", 0.0))
    return results(folder / "result")[0]


def assert_same(found: dict[str, np.ndarray], alone: dict[str, np.ndarray]) -> None:
    for name in ("scores", "lower", "upper"):
        assert found[name].tobytes() == alone[name].tobytes()


@pytest.mark.parametrize("processes", [2, 3])
def test_two_and_three_processes_find_what_one_finds(
    tmp_path: Path, alone: dict[str, np.ndarray], processes: int
) -> None:
    finish(start(tmp_path / "store", tmp_path / "result", 0.0, processes=processes))
    found = results(tmp_path / "result")
    assert [int(each["world"]) for each in found] == [processes] * processes
    for each in found:
        assert_same(each, alone)
    logs = sorted((tmp_path / "store").glob("*.bin"))
    assert len(logs) == processes  # every one of them drew
    assert sum(log.stat().st_size - 32 for log in logs) == 6 * 8 * 224  # and none of it twice


def test_a_run_killed_five_times_ends_as_if_it_had_not_been(
    tmp_path: Path, alone: dict[str, np.ndarray]
) -> None:
    moments = np.random.default_rng(int(time.time()))  # random in earnest: no moment may matter
    store, result, reached = tmp_path / "store", tmp_path / "result", []
    nursery = start()
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    for _ in range(5):
        print(store, result, 0.05, file=nursery.stdin, flush=True)
        words = {nursery.stdout.readline().strip() for _ in range(2)}
        assert "drawing" in words
        time.sleep(moments.uniform(0.0, 0.2))  # the whole takes 24 batches, 1.2 s and more
        os.kill(int((words - {"drawing"}).pop()), signal.SIGKILL)
        assert nursery.stdout.readline() == "ended\n"
        reached.append(sum(log.stat().st_size for log in store.glob("*.bin")))
    assert reached == sorted(reached)
    assert not result.exists()
    print(store, result, 0.0, file=nursery.stdin, flush=True)
    finish(nursery)
    assert_same(results(result)[0], alone)


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_share_that_does_not_exist_is_refused(rank: int, world: int) -> None:
    with pytest.raises(InputError, match=f"got rank {rank} of {world}"):
        Shard(rank, world, lambda: None)


def test_shares_are_disjoint_and_complete() -> None:
    owners = [[Shard(rank, 3, lambda: None).owns(position) for rank in range(3)] for position in range(10)]
    assert all(sum(row) == 1 for row in owners)


def test_a_process_alone_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert current_shard() is None
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert current_shard() is None
    for text in ("two", "0", "-1", ""):
        monkeypatch.setenv("WORLD_SIZE", text)
        with pytest.raises(InputError, match="unset it to run alone"):
            current_shard()


def test_processes_that_do_not_work_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE alone, without what a launcher sets beside it: this process would draw all by itself."""

    class Apart:
        num_processes, process_index = 1, 0

        def __init__(self, **_: object) -> None: ...

        def wait_for_everyone(self) -> None: ...

    monkeypatch.setattr("accelerate.PartialState", Apart)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="RANK, MASTER_ADDR, MASTER_PORT not set: no launcher started this"):
        current_shard()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(
        InputError, match=r"WORLD_SIZE is 2 but 1 process.*ACCELERATE_USE_CPU=true accelerate launch"
    ):
        current_shard()
