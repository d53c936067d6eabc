"""`certify` in several real processes, and killed at random: the same bytes come out."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

OPTIONS = [
    *(
        "--detector",
        "pixel_nn",
        "--resolution",
        "8",
        "--smoothing",
        "input",
        "--sigma",
        "0.25",
        "--limit",
        "8",
    ),
    *(
        "--n",
        "400",
        "--batch_size",
        "100",
        "--radii",
        "0.1",
        "--no_baselines",
        "--no_examples",
        "--output_dir",
    ),
]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes"]


def content(folder: Path) -> bytes:
    return (folder / "images.parquet").read_bytes()


def finish(process) -> tuple[str, str]:
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.parametrize(
    ("count", "extra"),
    [
        (2, []),
        pytest.param(3, [], marks=pytest.mark.slow),
        pytest.param(2, ["--adaptive"], marks=pytest.mark.slow),
    ],
)
def test_processes_that_share_the_work_write_the_same_bytes(count, extra, start, tmp_path) -> None:
    alone, _ = finish(start("-m", "certify", *OPTIONS, "one", *extra))
    together, err = finish(
        start(*LAUNCH, count, "-m", "certify", *OPTIONS, "many", *extra, ACCELERATE_USE_CPU="true")
    )
    assert content(tmp_path / "many") == content(tmp_path / "one")
    assert together == alone  # printed once
    manifest = json.loads((tmp_path / "many" / "manifest.json").read_text())
    assert [entry["world_size"] for entry in manifest["commands"]] == [count]
    assert err.count("certifying pixel_nn") == 1
    logs = list((tmp_path / "many" / "draws" / "pixel_nn").glob("scores-*.bin"))
    assert len(logs) == count  # every process drew its share


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_bytes(start, tmp_path) -> None:
    began = time.monotonic()
    finish(start("-m", "certify", *OPTIONS, "whole"))
    takes, dice = time.monotonic() - began, random.Random(0)
    for _ in range(5):
        process = start("-m", "certify", *OPTIONS, "killed")
        time.sleep(takes * dice.uniform(0.4, 0.95))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start("-m", "certify", *OPTIONS, "killed"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
