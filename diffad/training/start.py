"""The start of a run: its processes, its output folder, its logger, the checkpoint it goes on from."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from certify.checks import InputError
from certify.console import say
from diffad.training.checkpoints import find_checkpoint, list_checkpoints, remove_unfinished
from diffad.training.launch import start_accelerator
from diffad.training.optimizers import check_optimizer
from diffad.training.options import TrainingOptions


def start_run(options: TrainingOptions, config: dict[str, Any]) -> tuple[Accelerator, Path | None]:
    """Return the accelerator and the checkpoint to resume from, None for a fresh start.

    Raises:
        InputError: the output folder holds checkpoints and nothing says what to do with them; the checkpoint
            asked for is missing; the logger or the optimiser is not installed; processes are missing.
    """
    if options.logger == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise InputError("--logger tensorboard: tensorboard is not installed; pip install 'diffad[track]'")
    check_optimizer(options)
    folder = Path(options.output_dir)
    accelerator = start_accelerator(
        mixed_precision=options.mixed_precision,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        log_with=None if options.logger == "none" else options.logger,
        project_dir=folder / options.logging_dir,
    )
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        if options.overwrite_output_dir:
            _remove_run(folder)
    accelerator.wait_for_everyone()
    checkpoint = find_checkpoint(folder, options.resume_from_checkpoint)
    there = list_checkpoints(folder)
    if options.resume_from_checkpoint is None and there:
        raise InputError(
            f"{there[-1][1]} is of an earlier run: --resume_from_checkpoint latest goes on from it, "
            "--overwrite_output_dir removes it, another --output_dir leaves it alone"
        )
    if accelerator.is_main_process:
        began = (
            f"resuming from {checkpoint}"
            if checkpoint
            else f"no checkpoint in {folder}: starting from step 0"
        )
        say(f"{began}; loss and speed go to {folder / 'log.jsonl'}")
    plain = {name: _plain(value) for name, value in config.items() if value is not None}
    accelerator.init_trackers("train", config=plain)
    return accelerator, checkpoint


def _remove_run(folder: Path) -> None:
    for _, path in list_checkpoints(folder):
        shutil.rmtree(path)
    (folder / "log.jsonl").unlink(missing_ok=True)


def _plain(value: Any) -> int | float | str | bool:
    """A value that TensorBoard can show."""
    return value if isinstance(value, (int, float, str, bool)) else str(value)
