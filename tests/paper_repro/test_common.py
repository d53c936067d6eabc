"""What all experiments share: steps, chains and their schedule, means over seeds."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from certify.checks import InputError

FOLDER = Path(__file__).parents[2] / "paper_repro"


@pytest.fixture
def common(monkeypatch):
    """Import a module of the folder, which is found by the scripts beside it alone."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return lambda name: importlib.import_module(f"common.{name}")


def test_a_step_is_complete_for_its_own_arguments_only(common, tmp_path) -> None:
    step = common("steps").Step("s", "diffad", ("--help",), tmp_path)
    assert not step.complete
    (tmp_path / "s.json").write_text('["--help"]')
    assert step.complete
    assert not common("steps").Step("s", "diffad", ("--version",), tmp_path).complete


def test_a_step_waits_for_the_process_that_runs_it_already(common, tmp_path, capsys) -> None:
    code = (
        "import sys, time, pathlib, filelock\n"
        "done = pathlib.Path(sys.argv[1])\n"
        "with filelock.FileLock(done / 's.lock'):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(1)\n"
        "    (done / 's.json').write_text('[\"--no-such-option\"]')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        common("steps").Step("s", "diffad", ("--no-such-option",), tmp_path).run()  # would fail if it ran
    assert other.returncode == 0
    assert capsys.readouterr().err == "--- s: waiting for a process that runs it already\n"


def chain_of(common, tmp_path, name, *needs):
    steps = common("steps")
    return steps.Chain(name, (steps.Step(name, "diffad", (), tmp_path / "done"),), needs)


# arguments: the folder of `common`, that of the logs, a file of what was run, chains that fail
WORKER = """
import os, sys
from pathlib import Path
folder, logs, order, *bad = sys.argv[1:]
sys.path.append(folder)
from common.worker import serve
def run(name):
    assert os.environ["OMP_NUM_THREADS"] == "1" and os.environ["CUDA_VISIBLE_DEVICES"] == ""
    with open(order, "a") as file:
        file.write(f"{os.getpid()} {name}\\n")
    print("working on", name)
    if name == "gone":
        os._exit(0)
    if name in bad:
        raise {"a": SystemExit("no such thing"), "wrong": ZeroDivisionError("a bug")}[name]
serve(run, lambda name: Path(logs) / f"{name}.log")
"""


def worker(tmp_path, *bad) -> list[str]:
    return [sys.executable, "-c", WORKER, str(FOLDER), str(tmp_path / "logs"), str(tmp_path / "order"), *bad]


def what_ran(tmp_path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "order").read_text().splitlines()]


def test_parallel_chains_wait_for_each_other(common, tmp_path) -> None:
    chains = [chain_of(common, tmp_path, "a"), chain_of(common, tmp_path, "b", "a")]
    run = common("schedule").run_parallel
    assert run(chains[::-1], 2, tmp_path / "logs", worker(tmp_path), keep_going=False) == []
    assert [name for _, name in what_ran(tmp_path)] == ["a", "b"]
    assert (tmp_path / "logs" / "b.log").read_text() == "working on b\n"


def test_a_process_runs_one_chain_after_another(common, tmp_path) -> None:
    chains = [chain_of(common, tmp_path, str(place)) for place in range(6)]
    run = common("schedule").run_parallel
    assert run(chains, 2, tmp_path / "logs", worker(tmp_path), keep_going=False) == []
    ran = what_ran(tmp_path)
    assert sorted(name for _, name in ran) == [str(place) for place in range(6)]
    assert len({process for process, _ in ran}) <= 2


def test_a_failed_chain_ends_with_its_log_or_leaves_out_what_needs_it(common, tmp_path) -> None:
    names = [("a",), ("b", "a"), ("c",), ("wrong",), ("gone",), ("last",)]
    chains = [chain_of(common, tmp_path, *one) for one in names]
    run = common("schedule").run_parallel
    words = worker(tmp_path, "a", "wrong")
    with pytest.raises(SystemExit, match=r"(?s)a failed with exit code 2.*no such thing"):
        run(chains, 1, tmp_path / "logs", words, keep_going=False)
    # a bug, or a process that is gone, costs its own chain alone
    assert run(chains, 1, tmp_path / "logs", words, keep_going=True) == ["a", "wrong", "gone", "b"]
    assert "ZeroDivisionError: a bug" in (tmp_path / "logs" / "wrong.log").read_text()
    ran = what_ran(tmp_path)
    assert [name for _, name in ran] == ["a", "a", "c", "wrong", "gone", "last"]
    process = {name: number for number, name in ran[1:]}
    assert process["c"] == process["wrong"]  # c was sound
    assert (
        len({process[name] for name in ("a", "c", "gone", "last")}) == 4
    )  # nothing runs where something failed


def test_a_worker_ends_quietly_when_its_parent_is_gone(tmp_path) -> None:
    words = worker(tmp_path)
    hidden = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=hidden
    ) as one:
        one.stdout.close()  # nobody reads the answer any more
        _, err = one.communicate(b"a\n")
    assert one.returncode == 0
    assert err == b""
    assert [name for _, name in what_ran(tmp_path)] == ["a"]


def test_wrong_numbers_of_processes_are_refused(common, tmp_path) -> None:
    with pytest.raises(InputError, match="--jobs: got 0, need at least 1"):
        common("schedule").run_chains([], 0, tmp_path, ["python"], keep_going=False)


def test_means_are_of_rows_that_agree_and_bounds_are_cut(common) -> None:
    tables = common("tables")
    rows = [{"set": "a", "auroc": 0.9}, {"set": "a", "auroc": 0.7}, {"set": "b", "auroc": 0.59999}]
    several, single = tables.means(rows, ("set",))
    assert (several["set"], several["seeds"]) == ("a", 2)
    assert tables.cell(several) == "0.800 ± 0.141"
    assert tables.cell(single) == "0.600"
    assert tables.cell(single, floor=True) == "0.599"
    assert tables.cell(None) == ""
