"""`diffad attack` in several real processes, and killed at random: the same bytes come out."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import pytest

WHERE = ["--detector", "pixel_nn", "--data", "digits", "--normal_class", "8", "--resolution", "8", "--limit"]
NOISE = ["--smoothing", "input", "--sigma", "0.25", "--n", "100", "--batch_size", "50"]
ATTACK = ["--curve", "0.1,0.2", "--steps", "4", "--restarts", "2", "--checks", "none", "--output_dir"]
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes"]


def content(folder: Path) -> bytes:
    return (folder / "images.parquet").read_bytes()


def finish(process) -> tuple[str, str]:
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return out, err


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_that_share_the_work_write_the_same_bytes(count, start, tmp_path) -> None:
    words = ["-m", "diffad", "attack", *WHERE, "4", *NOISE, *ATTACK]
    alone, _ = finish(start(*words, "one"))
    together, err = finish(start(*LAUNCH, count, *words, "many", ACCELERATE_USE_CPU="true"))
    assert content(tmp_path / "many") == content(tmp_path / "one")
    assert together == alone  # printed once
    manifest = json.loads((tmp_path / "many" / "manifest.json").read_text())
    assert [entry["world_size"] for entry in manifest["commands"]] == [count]
    assert err.count("attacking pixel_nn") == 1


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_bytes(start, tmp_path) -> None:
    words = ["-m", "diffad", "attack", *WHERE, "12", *NOISE, *ATTACK]
    began = time.monotonic()
    finish(start(*words, "whole"))
    takes, dice = time.monotonic() - began, random.Random(0)
    for _ in range(5):
        process = start(*words, "killed")
        time.sleep(takes * dice.uniform(0.4, 0.95))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert list((tmp_path / "killed" / "draws" / "attack").glob("*/batch-*"))  # something was kept
    finish(start(*words, "killed"))
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
