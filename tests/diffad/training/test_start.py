import importlib.util
import os
from pathlib import Path

import pytest
import torch
from toy import toy_loss, toy_options, toy_training

from certify.checks import InputError
from diffad.training import launch
from diffad.training.checkpoints import list_checkpoints
from diffad.training.log import StepLog, read_log


def test_another_run_in_the_folder_is_refused_by_the_option_that_differs(tmp_path: Path) -> None:
    toy_training(toy_options(tmp_path))
    with pytest.raises(InputError, match=r"learning_rate 0\.01 there, 0\.5 here.*--overwrite_output_dir"):
        toy_training(toy_options(tmp_path, learning_rate=0.5))


def test_without_resume_earlier_checkpoints_are_not_written_over(tmp_path: Path) -> None:
    toy_training(toy_options(tmp_path))
    with pytest.raises(InputError, match="is of an earlier run"):
        toy_training(toy_options(tmp_path, resume_from_checkpoint=None))
    toy_training(
        toy_options(tmp_path, resume_from_checkpoint=None, overwrite_output_dir=True, max_train_steps=3)
    )
    assert [step for step, _ in list_checkpoints(tmp_path)] == [3]
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]


def test_a_training_can_be_prolonged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy_training(toy_options(tmp_path, lr_scheduler="constant"))
    (tmp_path / ".unfinished-checkpoint-9").mkdir()
    assert f"no checkpoint in {tmp_path}: starting from step 0" in capsys.readouterr().err
    toy_training(toy_options(tmp_path, lr_scheduler="constant", max_train_steps=10))
    assert f"resuming from {tmp_path / 'checkpoint-8'}" in capsys.readouterr().err
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == list(range(1, 11))
    assert not (tmp_path / ".unfinished-checkpoint-9").exists()


def test_resume_from_a_path_drops_the_log_beyond_it(tmp_path: Path) -> None:
    toy_training(toy_options(tmp_path))

    def stop(model, batch, generator):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        toy_training(toy_options(tmp_path, resume_from_checkpoint="checkpoint-4"), stop)
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4]
    toy_training(toy_options(tmp_path, resume_from_checkpoint="checkpoint-4"), toy_loss)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [4, 8]


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (3, "3 threads")])
def test_one_process_is_said_to_have_its_threads(
    threads: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    launch.start_accelerator()
    assert capsys.readouterr().err.splitlines()[-1] == f"1 process on cpu, {words}"


def test_missing_logger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="tensorboard is not installed; pip install"):
        toy_training(toy_options(tmp_path, logger="tensorboard"))


@pytest.mark.parametrize(
    ("words", "threads"),
    [(None, 1), (["train_ddpm.py"], 2), (["--num-cpu-threads-per-process=1", "train_ddpm.py"], 1)],
)
def test_the_single_thread_of_the_launcher_is_undone_unless_asked_for(
    words: list[str] | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    launch._use_all_cores(words)
    assert chosen[-1] == threads


def test_float16_without_a_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        toy_training(toy_options(tmp_path, mixed_precision="fp16"))


def test_bfloat16_trains_and_resumes(tmp_path: Path) -> None:
    toy_training(toy_options(tmp_path / "unbroken", mixed_precision="bf16"))
    changes = {"mixed_precision": "bf16", "lr_scheduler": "constant"}
    toy_training(toy_options(tmp_path / "long", **changes))
    toy_training(toy_options(tmp_path / "short", **changes, max_train_steps=5))
    toy_training(toy_options(tmp_path / "short", **changes))
    long, short = (tmp_path / name / "checkpoint-8" / "ema.safetensors" for name in ("long", "short"))
    assert long.read_bytes() == short.read_bytes()


def test_warm_up_longer_than_the_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lr_warmup_steps: got 8 for a training of 8 steps"):
        toy_training(toy_options(tmp_path, lr_warmup_steps=8))


@pytest.mark.parametrize(
    "wrong", [{"train_batch_size": 0}, {"learning_rate": -1.0}, {"adam_beta1": 1.0}, {"seed": -1}]
)
def test_options_out_of_range_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        toy_options("unused", **wrong)


def test_epochs_count_all_processes_and_accumulation() -> None:
    options = toy_options("unused", max_train_steps=None, num_epochs=10, gradient_accumulation_steps=2)
    assert options.total_steps(images=100, processes=1) == 90  # ceil(100 / 12) = 9 an epoch
    assert options.total_steps(images=100, processes=2) == 50


def test_log_forgets_what_lies_beyond_and_a_line_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    StepLog(path, resumed_at=2).write({"step": 5})
    assert [row["step"] for row in read_log(path)] == [1, 2, 5]
