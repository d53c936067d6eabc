"""Starting accelerate: the device, the processes that really run, and the threads of each.

On a CPU `accelerate launch` starts one process whatever `--num_processes` says, and sets OMP_NUM_THREADS=1
without a word. Both are caught here: the first is refused, the second is put right.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType, GradientAccumulationPlugin

from certify.checks import InputError
from certify.console import say

_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def start_accelerator(
    *,
    mixed_precision: str = "no",
    gradient_accumulation_steps: int = 1,
    log_with: str | None = None,
    project_dir: Path | str | None = None,
) -> Accelerator:
    """Return an `Accelerator` on the machine's accelerator, or on its CPU; one line to stderr says which.

    Raises:
        InputError: fewer processes run than were asked for, a strategy that shards the weights, float16 on a CPU.
    """
    if mixed_precision == "fp16" and not torch.accelerator.is_available():
        raise InputError("mixed_precision: fp16 needs a GPU; on a CPU use bf16 or no")
    # A process may train more than once, with other settings each time.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    accelerator = Accelerator(
        # else torchrun on a machine without an accelerator starts processes that know nothing of each other
        cpu=not torch.accelerator.is_available(),
        mixed_precision=mixed_precision,
        # Batches come in whole steps: the end of the loader, met early by one that reads ahead, decides nothing.
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=gradient_accumulation_steps, sync_with_dataloader=False
        ),
        log_with=log_with,
        project_dir=project_dir,
        step_scheduler_with_optimizer=False,
    )
    if accelerator.distributed_type not in _SUPPORTED:
        raise InputError(
            f"launched with {accelerator.distributed_type.value}: training supports one process or plain "
            "data parallelism (accelerate launch --multi_gpu), not sharded weights"
        )
    launcher = _launcher_arguments()
    check_world_size(accelerator.num_processes)
    if accelerator.device.type == "cpu" and accelerator.num_processes == 1:
        _use_all_cores(launcher)
    if accelerator.is_main_process:
        count, used = accelerator.num_processes, torch.get_num_threads()
        words = f", {used} thread{'s' if used > 1 else ''}{' each' if count > 1 else ''}"
        threads = words if accelerator.device.type == "cpu" else ""
        say(f"{count} process{'es' if count > 1 else ''} on {accelerator.device.type}{threads}")
    return accelerator


def check_world_size(started: int) -> None:
    """Refuse a run in which fewer processes work together than the user, or the launcher, believes."""
    promised = int(os.environ.get("WORLD_SIZE", "1"))
    if promised != started:
        raise InputError(
            f"WORLD_SIZE is {promised} but {started} process(es) work together: refusing to run apart"
        )
    asked = int(_option(_launcher_arguments(), "num_processes") or started)
    if asked > started:
        raise InputError(
            f"accelerate launch was asked for {asked} processes and started {started}; on a CPU use: "
            f"ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {asked} ..."
        )


def _use_all_cores(launcher: list[str] | None) -> None:
    """Undo the single thread that `accelerate launch` sets for one process unless it was asked for."""
    if launcher is None or _option(launcher, "num_cpu_threads_per_process") is not None:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if os.environ.get("OMP_NUM_THREADS") == "1" and cores > 1:
        say(
            f"accelerate launch set 1 thread; using {cores} (--num_cpu_threads_per_process decides otherwise)"
        )
        torch.set_num_threads(cores)


def _launcher_arguments() -> list[str] | None:
    """Return the words after `accelerate launch` if that started this process, else None.

    Read from /proc, so on other systems than Linux nothing is known and nothing is put right.
    """
    try:
        command = Path(f"/proc/{os.getppid()}/cmdline").read_text(encoding="utf-8").split("\0")[:-1]
    except OSError:
        return None
    for position, word in enumerate(command[:4]):
        if word == "launch" and Path(command[position - 1]).name in ("accelerate", "accelerate.exe"):
            return command[position + 1 :]
        if Path(word).name == "accelerate-launch" or word == "accelerate.commands.launch":
            return command[position + 1 :]
    return None


def _option(arguments: list[str] | None, name: str) -> str | None:
    """Return the value of `--name VALUE` or `--name=VALUE`, with either spelling of the hyphens."""
    for position, word in enumerate(arguments or []):
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            return value if equals else (arguments or [])[position + 1]
    return None
