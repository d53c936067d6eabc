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
from diffad.world_size import check_world_size, launcher_arguments, option_of

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
    launcher = launcher_arguments()
    check_world_size(accelerator.num_processes)
    if accelerator.device.type == "cpu" and accelerator.num_processes == 1:
        _use_all_cores(launcher)
    if accelerator.is_main_process:
        count, used = accelerator.num_processes, torch.get_num_threads()
        words = f", {used} thread{'s' if used > 1 else ''}{' each' if count > 1 else ''}"
        threads = words if accelerator.device.type == "cpu" else ""
        say(f"{count} process{'es' if count > 1 else ''} on {accelerator.device.type}{threads}")
    return accelerator


def _use_all_cores(launcher: list[str] | None) -> None:
    """Undo the single thread that `accelerate launch` sets for one process unless it was asked for."""
    if launcher is None or option_of(launcher, "num_cpu_threads_per_process") is not None:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if os.environ.get("OMP_NUM_THREADS") == "1" and cores > 1:
        say(
            f"accelerate launch set 1 thread; using {cores} (--num_cpu_threads_per_process decides otherwise)"
        )
        torch.set_num_threads(cores)
