"""The training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from certify.checks import InputError
from diffad.training.batches import DRAWS, key
from diffad.training.checkpoints import list_checkpoints
from diffad.training.log import StepLog
from diffad.training.state import Network, Training

ECHO_SECONDS = 2.0  # a launcher passes on the Ctrl-C that its processes received from the terminal as well
BatchLoss = Callable[[nn.Module, tuple[Tensor, ...], torch.Generator], Tensor]
Figures = Callable[[], Mapping[str, float]]


class DivergedError(InputError):
    """The loss or its gradient is no longer finite."""


@dataclass
class StopRequest:
    """Set by Ctrl-C or SIGTERM."""

    when: float | None = None
    """Monotonic seconds of the first signal."""

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self.when is not None


@contextmanager
def deferred_stop() -> Iterator[StopRequest]:
    """Turn SIGINT or SIGTERM into a request that the loop reads after a step; repeated later, it stops at once."""
    stop = StopRequest()
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python delivers signals to the main thread only
        yield stop
        return

    def ask(number: int, frame: Any) -> None:
        if stop.when is None:
            stop.when = time.monotonic()
        elif time.monotonic() - stop.when > ECHO_SECONDS:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Interval:
    """Sums since the last line of the log, kept on the device so that no step waits for them."""

    losses: list[Tensor] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)


def run(
    training: Training[Network],
    batch_loss: BatchLoss,
    *,
    config: dict[str, Any],
    draw_images: Callable[[Network, int], None] | None = None,
    figures: Figures | None = None,
) -> None:
    """Train from `training.step` to `training.total_steps`, then write the last checkpoint.

    `batch_loss(model, batch, generator)` returns the mean loss of a batch and draws from `generator` only;
    dropout follows the global generator, which is set for every batch and given back at the end.
    `draw_images(averaged network, step)` is called in the main process. `figures()` is called in every process for a
    line of the log and returns finite numbers since the last one, under the same names everywhere, which join that
    line as means over the processes.

    Raises:
        DivergedError: loss or gradient is not finite; nothing was saved since.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    if training.step >= training.total_steps:
        return
    accelerator, options = training.accelerator, training.options
    main, alone = accelerator.is_main_process, accelerator.num_processes == 1
    log = StepLog(Path(options.output_dir) / "log.jsonl", resumed_at=training.step) if main else None
    cuda = [accelerator.device] if accelerator.device.type == "cuda" else []
    interval = _Interval()
    training.model.train()
    with torch.random.fork_rng(devices=cuda), deferred_stop() as stop, _bar(training) as bar:
        for number, batch in enumerate(training.loader, training.step * options.gradient_accumulation_steps):
            rate = training.optimizer.param_groups[0]["lr"]
            if not _one_batch(training, batch_loss, batch, number, interval):
                continue
            bar.update()
            step = training.step
            saving = step == training.total_steps or step % options.checkpointing_steps == 0
            if not (saving or step % options.logging_steps == 0 or (alone and stop.asked)):
                continue
            row, stopping = _summary(training, interval, rate, stop)
            row.update(_reduced(training, {} if figures is None else figures()))
            if log is not None:
                log.write(row)
            accelerator.log({name: value for name, value in row.items() if name != "step"}, step=step)
            bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
            if saving or stopping:
                training.save(config)
            if stopping:
                raise KeyboardInterrupt
            if (
                draw_images is not None
                and main
                and options.save_images_steps
                and step % options.save_images_steps == 0
            ):
                draw_images(training.averaged(), step)
            interval = _Interval()


def _bar(training: Training[Any]) -> tqdm[Any]:
    """A progress bar on stderr; none without a terminal, and one for all processes."""
    return tqdm(
        total=training.total_steps,
        initial=training.step,
        desc="train",
        unit="step",
        disable=None if training.accelerator.is_main_process else True,
        dynamic_ncols=True,
    )


def _one_batch(
    training: Training[Any],
    batch_loss: BatchLoss,
    batch: tuple[Tensor, ...],
    number: int,
    interval: _Interval,
) -> bool:
    """Go forward and backward on this process's batch `number`; return whether an optimiser step was made."""
    accelerator, options = training.accelerator, training.options
    seed = key(options.seed, DRAWS, number, accelerator.process_index)
    torch.manual_seed(seed)  # dropout reads the global generator
    _share_buffers(training)
    generator = torch.Generator(accelerator.device).manual_seed(seed)
    with accelerator.accumulate(training.model):
        loss = batch_loss(training.model, batch, generator)
        accelerator.backward(loss)
        interval.losses.append(loss.detach())
        if accelerator.sync_gradients:
            norm = accelerator.clip_grad_norm_(training.model.parameters(), options.max_grad_norm)
            interval.norms.append(norm.detach())
        training.optimizer.step()
        training.optimizer.zero_grad()
    if not accelerator.sync_gradients:
        return False
    if not accelerator.optimizer_step_was_skipped:  # float16 skips a step whose gradients overflow
        training.schedule.step()
    if training.ema is not None:
        training.ema.step(training.module.parameters())
    training.step += 1
    return True


def _share_buffers(training: Training[Any]) -> None:
    """Give every process the buffers of the first one, which are those that a checkpoint holds.

    Data parallelism does so in its forward pass. That is too late for an attack on the bare network before it, which
    would read other batch statistics in an unbroken run than in a resumed one.
    """
    if training.accelerator.num_processes > 1:
        for buffer in training.module.buffers():
            torch.distributed.broadcast(buffer, 0)


def _reduced(training: Training[Any], figures: Mapping[str, float]) -> dict[str, float]:
    """Return the means of numbers over the processes."""
    if not figures:
        return {}
    mine = torch.tensor(list(figures.values()), dtype=torch.float32, device=training.accelerator.device)
    means = training.accelerator.reduce(mine, reduction="mean").tolist()
    return dict(zip(figures, means, strict=True))


def _summary(
    training: Training[Any], interval: _Interval, rate: float, stop: StopRequest
) -> tuple[dict[str, Any], bool]:
    """Return the line of the log and whether any process was asked to stop; the processes agree on both.

    Raises:
        DivergedError: something of the interval is not finite, in any process.
    """
    accelerator, options = training.accelerator, training.options
    losses, norms = torch.stack(interval.losses).float(), torch.stack(interval.norms).float()
    if accelerator.scaler is not None:  # overflow is how float16 finds its scale
        norms = norms[torch.isfinite(norms)]
    asked = torch.tensor(float(stop.asked), device=losses.device)
    mine = torch.stack([losses.mean(), norms.mean() if len(norms) else losses.new_zeros(()), asked])
    loss, norm, asks = accelerator.reduce(mine, reduction="mean").tolist()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        kept = list_checkpoints(options.output_dir)
        where = f"the last checkpoint is {kept[-1][1]}" if kept else "no checkpoint was written yet"
        raise DivergedError(
            f"training diverged: loss {loss}, gradient norm {norm} in the {len(interval.norms)} steps up to "
            f"{training.step}; {where}; start again with a smaller --learning_rate"
        )
    seconds = time.perf_counter() - interval.began
    images = len(interval.losses) * options.train_batch_size * accelerator.num_processes
    row = {
        "step": training.step,
        "loss": loss,
        "lr": rate,
        "grad_norm": norm,
        "samples_per_second": round(images / seconds, 1),
    }
    return row, asks > 0
