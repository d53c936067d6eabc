import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy import toy_loss, toy_options, toy_training

from diffad.training import DivergedError, loop
from diffad.training.checkpoints import list_checkpoints
from diffad.training.log import read_log

TOY = Path(__file__).with_name("toy.py")


def contents(checkpoint: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}


def without_speed(folder: Path) -> list[dict[str, float]]:
    return [
        {name: v for name, v in row.items() if name != "samples_per_second"}
        for row in read_log(folder / "log.jsonl")
    ]


def schedule(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Rate of the optimiser step number `step`, from 1: linear warm-up, then half a cosine."""
    done = step - 1
    if done < warmup:
        return peak * done / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (total - warmup)))


@pytest.mark.parametrize("accumulation", [1, 4])
def test_resume_repeats_the_unbroken_run_to_the_bit(tmp_path: Path, accumulation: int) -> None:
    changes = {"gradient_accumulation_steps": accumulation}
    toy_training(toy_options(tmp_path / "unbroken", **changes))

    def interrupt(model, batch, generator):
        if len(list_checkpoints(tmp_path / "broken")) == 1:
            raise RuntimeError("power cut")
        return toy_loss(model, batch, generator)

    broken = toy_options(tmp_path / "broken", **changes)
    with pytest.raises(RuntimeError, match="power cut"):
        toy_training(broken, interrupt)
    assert [step for step, _ in list_checkpoints(tmp_path / "broken")] == [4]
    toy_training(broken)

    unbroken, resumed = tmp_path / "unbroken" / "checkpoint-8", tmp_path / "broken" / "checkpoint-8"
    assert set(contents(unbroken)) == {"model.safetensors", "ema.safetensors", "optimizer.safetensors"}
    assert contents(unbroken) == contents(resumed)
    assert without_speed(tmp_path / "unbroken") == without_speed(tmp_path / "broken")


def test_seed_decides_the_result(tmp_path: Path) -> None:
    first = toy_training(toy_options(tmp_path / "a"))
    again = toy_training(toy_options(tmp_path / "b"))
    other = toy_training(toy_options(tmp_path / "c", seed=1))
    assert torch.equal(first.module[0].weight, again.module[0].weight)
    assert not torch.equal(first.module[0].weight, other.module[0].weight)


def test_global_random_state_is_given_back(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    toy_training(toy_options(tmp_path))
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_batch_has_draws_of_its_own(tmp_path: Path) -> None:
    draws: list[float] = []

    def drawing(model, batch, generator):
        draws.extend([float(torch.rand((), generator=generator)), float(torch.rand(()))])
        return toy_loss(model, batch, generator)

    toy_training(toy_options(tmp_path, gradient_accumulation_steps=2), drawing)
    assert len(draws) == 2 * 2 * 8
    assert len(set(draws[0::2])) == len(set(draws[1::2])) == 16


@pytest.mark.parametrize("accumulation", [1, 4])
def test_rate_follows_optimiser_steps(tmp_path: Path, accumulation: int) -> None:
    options = toy_options(
        tmp_path, gradient_accumulation_steps=accumulation, max_train_steps=12, lr_warmup_steps=3
    )
    training = toy_training(options)
    rates = [row["lr"] for row in read_log(tmp_path / "log.jsonl")]
    assert rates == pytest.approx([schedule(k, peak=0.01, warmup=3, total=12) for k in range(1, 13)])
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)


def test_accumulated_gradient_is_that_of_one_large_batch(tmp_path: Path) -> None:
    def plain(model, batch, generator):
        return torch.nn.functional.mse_loss(model.eval()(batch[0]), batch[0])

    large = toy_training(toy_options(tmp_path / "1", train_batch_size=8, max_train_steps=3), plain)
    small = toy_training(
        toy_options(tmp_path / "4", train_batch_size=2, gradient_accumulation_steps=4, max_train_steps=3),
        plain,
    )
    torch.testing.assert_close(large.module[0].weight, small.module[0].weight)


def test_average_warms_up_and_lags(tmp_path: Path) -> None:
    training = toy_training(toy_options(tmp_path, ema_max_decay=0.9, max_train_steps=6))
    averaged = training.averaged()
    assert training.ema is not None
    assert training.ema.optimization_step == 6
    assert training.ema.cur_decay_value == pytest.approx(1 - (1 + 5) ** -0.75)
    assert not averaged.training
    assert not torch.equal(averaged[0].weight, training.module[0].weight)


def test_without_average_the_weights_themselves_are_delivered(tmp_path: Path) -> None:
    training = toy_training(toy_options(tmp_path, use_ema=False))
    assert torch.equal(training.averaged()[0].weight, training.module[0].weight)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_signal_saves_and_the_rerun_ends_the_same(tmp_path: Path, number: int) -> None:
    toy_training(toy_options(tmp_path / "unbroken"))
    batches = 0

    def stop_in_third(model, batch, generator):
        nonlocal batches
        batches += 1
        if batches == 3:
            signal.raise_signal(number)
        return toy_loss(model, batch, generator)

    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        toy_training(toy_options(tmp_path / "stopped"), stop_in_third)
    assert signal.getsignal(number) is before
    assert [step for step, _ in list_checkpoints(tmp_path / "stopped")] == [3]
    toy_training(toy_options(tmp_path / "stopped"))
    assert contents(tmp_path / "unbroken" / "checkpoint-8") == contents(tmp_path / "stopped" / "checkpoint-8")


@pytest.mark.parametrize(("patience", "saved"), [(60.0, [2]), (-1.0, [])])
def test_an_echo_of_the_signal_is_ignored_and_a_late_one_stops_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: float, saved: list[int]
) -> None:
    monkeypatch.setattr(loop, "ECHO_SECONDS", patience)
    batches = 0

    def stop_in_second(model, batch, generator):
        nonlocal batches
        batches += 1
        if batches == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        return toy_loss(model, batch, generator)

    with pytest.raises(KeyboardInterrupt):
        toy_training(toy_options(tmp_path), stop_in_second)
    assert [step for step, _ in list_checkpoints(tmp_path)] == saved


@pytest.mark.parametrize("what", ["loss", "loss alone", "gradient"])
@pytest.mark.parametrize("logging_steps", [1, 100])
def test_divergence_stops_and_keeps_the_last_checkpoint(
    tmp_path: Path, what: str, logging_steps: int
) -> None:
    batches = 0

    def diverge(model, batch, generator):
        nonlocal batches
        batches += 1
        loss = toy_loss(model, batch, generator)
        if batches < 8:
            return loss
        if what == "loss alone":
            return loss + math.inf
        weight = next(model.parameters())
        return loss * math.nan if what == "loss" else loss + (0.0 * weight).abs().sqrt().sum()

    with pytest.raises(DivergedError, match=r"diverged.*checkpoint-4;.*learning_rate") as caught:
        toy_training(toy_options(tmp_path, logging_steps=logging_steps), diverge)
    assert "\n" not in str(caught.value)
    assert [step for step, _ in list_checkpoints(tmp_path)] == [4]
    assert all(math.isfinite(row["loss"]) for row in read_log(tmp_path / "log.jsonl"))


def test_rerun_of_a_finished_training_changes_nothing(tmp_path: Path) -> None:
    toy_training(toy_options(tmp_path))
    before = contents(tmp_path / "checkpoint-8")
    training = toy_training(toy_options(tmp_path))
    assert training.step == 8
    assert contents(tmp_path / "checkpoint-8") == before
    assert len(read_log(tmp_path / "log.jsonl")) == 8


def test_tensorboard_receives_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    toy_training(toy_options(tmp_path, logger="tensorboard")).accelerator.end_training()
    assert list((tmp_path / "logs").rglob("events.out.tfevents*"))


def test_two_processes_train_one_network(tmp_path: Path) -> None:
    jobs = [
        {"folder": str(tmp_path / str(g)), "gradient_accumulation_steps": g, "max_train_steps": 12}
        for g in (1, 4)
    ]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(TOY),
    ]
    done = subprocess.run(
        command + [json.dumps(job) for job in jobs],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert answers == [{"world_size": 2, "spread": 0.0}] * 2
    for job in jobs:
        rates = [row["lr"] for row in read_log(Path(job["folder"]) / "log.jsonl")]
        assert rates == pytest.approx([schedule(k, peak=0.01, warmup=2, total=12) for k in range(1, 13)])


def test_two_processes_resume_to_the_bit_where_a_loss_reads_batch_statistics(tmp_path: Path) -> None:
    script = TOY.with_name("resume_in_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = contents(tmp_path / "resumed" / "checkpoint-4")
    assert "model.safetensors" in found
    assert found == contents(tmp_path / "unbroken" / "checkpoint-4")


def test_figures_join_the_lines_of_the_log(tmp_path: Path) -> None:
    counted = [0]

    def counting(model, batch, generator):
        counted[0] += 1
        return toy_loss(model, batch, generator)

    def figures() -> dict[str, float]:
        count, counted[0] = counted[0], 0
        return {"batches": float(count)}

    options = toy_options(tmp_path, logging_steps=3, gradient_accumulation_steps=2)
    toy_training(options, counting, figures)
    assert [row["batches"] for row in read_log(tmp_path / "log.jsonl")] == [6.0, 2.0, 4.0, 4.0]
