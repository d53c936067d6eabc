"""Options of every training, spelt as in Hugging Face's scripts. A step is an optimiser step throughout."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from certify.checks import InputError

Schedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"
]

# What may differ between a checkpoint and the run that resumes from it.
FREE_ON_RESUME = frozenset(
    {
        "output_dir",
        "overwrite_output_dir",
        "num_epochs",
        "max_train_steps",
        "dataloader_num_workers",
        "checkpointing_steps",
        "checkpoints_total_limit",
        "resume_from_checkpoint",
        "save_images_steps",
        "logging_steps",
        "logger",
        "logging_dir",
    }
)


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with an infinite number, which JSON does not have, as text: `inf`."""
    return {
        name: str(value) if isinstance(value, float) and math.isinf(value) else value
        for name, value in config.items()
    }


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of every training; a detector's own configuration inherits them and adds to them."""

    output_dir: str = "runs/model"
    """Folder of the checkpoints, the log and the result."""
    overwrite_output_dir: bool = False
    """Remove the checkpoints and the log of an earlier run in output_dir first."""
    seed: int = 0
    """Decides initial weights, order, augmentation and noise."""
    train_batch_size: int = 64
    """Images a process and a backward pass."""
    gradient_accumulation_steps: int = 1
    """Backward passes an optimiser step."""
    num_epochs: int = 100
    """Passes over the images; max_train_steps overrides it."""
    max_train_steps: int | None = None
    """Optimiser steps of the whole training."""
    learning_rate: float = 1e-4
    """Its peak, reached after the warm-up."""
    lr_scheduler: Schedule = "cosine"
    """Course of the learning rate after the warm-up."""
    lr_warmup_steps: int = 500
    """Optimiser steps of linear warm-up."""
    optimizer: Literal["adamw", "lars"] = "adamw"
    """lars scales each weight's step to its norm and needs timm; see diffad.training.optimizers."""
    adam_beta1: float = 0.95
    adam_beta2: float = 0.999
    adam_weight_decay: float = 1e-6
    adam_epsilon: float = 1e-8
    lars_momentum: float = 0.9
    lars_weight_decay: float = 1e-6
    """Of weights; biases and batch norm have none."""
    lars_trust_coefficient: float = 1e-3
    """A step changes a weight tensor by this share of its norm, times the learning rate."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this L2 norm; inf leaves them alone."""
    use_ema: bool = True
    """Keep, and deliver, an exponential moving average of the weights."""
    ema_inv_gamma: float = 1.0
    """Warm-up of the average: its decay at step n is 1 - (1 + n / inv_gamma) ** -power, up to max_decay."""
    ema_power: float = 0.75
    ema_max_decay: float = 0.9999
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    dataloader_num_workers: int = 0
    """0 reads the tensors in this process, which is fastest when they are in memory."""
    checkpointing_steps: int = 500
    checkpoints_total_limit: int | None = 2
    """Newest checkpoints to keep; None keeps all."""
    resume_from_checkpoint: str | None = "latest"
    """A checkpoint folder, `latest` (a fresh start if there is none yet), or None."""
    save_images_steps: int = 0
    """Look at the averaged network (grids of images, accuracy) every so many steps; 0: at the end only."""
    logging_steps: int = 10
    """Steps between two lines of log.jsonl, each the mean over them."""
    logger: Literal["none", "tensorboard"] = "none"
    """Where the numbers go beside log.jsonl."""
    logging_dir: str = "logs"
    """Folder of the logger, inside output_dir."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in (
            "train_batch_size",
            "gradient_accumulation_steps",
            "num_epochs",
            "max_train_steps",
            "checkpointing_steps",
            "checkpoints_total_limit",
            "logging_steps",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: got {value}, need at least 1")
        for name in (
            "learning_rate",
            "max_grad_norm",
            "adam_epsilon",
            "lars_trust_coefficient",
            "ema_inv_gamma",
            "ema_power",
        ):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: got {getattr(self, name)}, need a value above 0")
        for name in (
            "lr_warmup_steps",
            "save_images_steps",
            "dataloader_num_workers",
            "seed",
            "lars_weight_decay",
        ):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least 0")
        for name in ("adam_beta1", "adam_beta2", "lars_momentum", "ema_max_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, need a value from 0 to below 1")

    def total_steps(self, images: int, processes: int) -> int:
        """Optimiser steps of the whole training on so many images and processes."""
        a_step = self.train_batch_size * self.gradient_accumulation_steps * processes
        total = self.max_train_steps or self.num_epochs * math.ceil(images / a_step)
        if self.lr_scheduler != "constant" and self.lr_warmup_steps >= total:
            raise InputError(
                f"lr_warmup_steps: got {self.lr_warmup_steps} for a training of {total} steps; need fewer"
            )
        return total
