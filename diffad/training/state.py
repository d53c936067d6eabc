"""A training in progress: what changes from step to step, what a checkpoint holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from certify.checks import InputError
from certify.console import say
from diffad.training.batches import batch_loader
from diffad.training.checkpoints import (
    join_optimizer,
    load_checkpoint,
    save_checkpoint,
    split_optimizer,
)
from diffad.training.optimizers import make_optimizer
from diffad.training.options import FREE_ON_RESUME, TrainingOptions, as_json

Network = TypeVar("Network", bound=nn.Module)


@dataclass
class Training(Generic[Network]):
    """A network with everything that changes while it is trained. Make one with `Training.prepare`."""

    accelerator: Accelerator
    options: TrainingOptions
    total_steps: int
    step: int
    """Optimiser steps done."""
    module: Network
    """The bare network: parameters, no wrapper."""
    model: nn.Module
    """The network as accelerate wraps it; losses call this one."""
    optimizer: AcceleratedOptimizer
    schedule: LambdaLR
    ema: EMAModel | None
    loader: Iterable[tuple[Tensor, ...]]
    """The batches of the steps still to do, for this process; a training may put more into them."""
    _blank: Network
    """A copy of the network that accelerate never touched, to receive the averaged weights."""

    @classmethod
    def prepare(
        cls,
        accelerator: Accelerator,
        module: Network,
        tensors: tuple[Tensor, ...],
        options: TrainingOptions,
        *,
        config: dict[str, Any],
        checkpoint: Path | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> Training[Network]:
        """Set up the training of `module` on `tensors` (common first axis), as `checkpoint` left it if given.

        `config` is stored in checkpoints; one of another configuration is refused, naming what differs. The
        learning-rate schedule is built after `accelerator.prepare` and counts optimiser steps, so it is the
        same for every accumulation and number of processes. `optimizer` moves parameters of `module`; None: the one
        that `options` name.
        """
        saved_tensors, saved = load_checkpoint(checkpoint) if checkpoint else ({}, None)
        if saved is not None:
            _check_same_run(saved, config, accelerator.num_processes, checkpoint)
        processes = accelerator.num_processes
        step = 0 if saved is None else int(saved["step"])
        total = options.total_steps(len(tensors[0]), processes)
        batches_a_step = options.gradient_accumulation_steps * processes
        blank = copy.deepcopy(module)
        model, prepared, loader = accelerator.prepare(
            module,
            make_optimizer(module, options) if optimizer is None else optimizer,
            batch_loader(
                tensors,
                options.train_batch_size,
                first=step * batches_a_step,
                last=max(step, total) * batches_a_step,
                seed=options.seed,
                workers=options.dataloader_num_workers,
                pin=accelerator.device.type == "cuda",
            ),
        )
        schedule = get_scheduler(
            options.lr_scheduler,
            prepared,
            num_warmup_steps=options.lr_warmup_steps,
            num_training_steps=total,
        )
        ema = _average(module, options) if options.use_ema else None
        training = cls(
            accelerator, options, total, step, module, model, prepared, schedule, ema, loader, blank
        )
        if saved is not None:
            training._restore(saved_tensors, saved)
        return training

    def save(self, config: dict[str, Any]) -> None:
        """Write `checkpoint-{step}` in the output folder; every process must call this."""
        if self.accelerator.is_main_process:
            optimizer_tensors, optimizer_state = split_optimizer(self.optimizer.optimizer)
            tensors = {"model": self.module.state_dict(), "optimizer": optimizer_tensors}
            if self.ema is not None:
                tensors["ema"] = dict(zip(self._names(), self.ema.shadow_params, strict=True))
            state = {
                "step": self.step,
                "world_size": self.accelerator.num_processes,
                "threads": torch.get_num_threads(),
                "optimizer": optimizer_state,
                "schedule": self.schedule.state_dict(),
                "ema_step": None if self.ema is None else self.ema.optimization_step,
                "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
                "config": as_json(config),
            }
            limit = self.options.checkpoints_total_limit
            save_checkpoint(self.options.output_dir, self.step, tensors, state, limit=limit)
        self.accelerator.wait_for_everyone()

    def averaged(self) -> Network:
        """Return a copy of the network with the averaged weights (without EMA the plain ones)."""
        self._blank.load_state_dict(self.module.state_dict())
        if self.ema is not None:
            self.ema.copy_to(self._blank.parameters())
        return self._blank.to(self.accelerator.device).eval()

    def _restore(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        self.module.load_state_dict(tensors["model"])
        join_optimizer(self.optimizer.optimizer, tensors["optimizer"], state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            for name, shadow in zip(self._names(), self.ema.shadow_params, strict=True):
                shadow.copy_(tensors["ema"][name])
            self.ema.optimization_step = state["ema_step"]
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        threads = torch.get_num_threads()
        if state["threads"] != threads:
            say(f"{state['threads']} threads before, {threads} now: the result will differ in the last bits")

    def _names(self) -> list[str]:
        return [name for name, _ in self.module.named_parameters()]


def _average(module: nn.Module, options: TrainingOptions) -> EMAModel:
    return EMAModel(
        module.parameters(),
        decay=options.ema_max_decay,
        use_ema_warmup=True,
        inv_gamma=options.ema_inv_gamma,
        power=options.ema_power,
        foreach=True,
    )


def _check_same_run(state: dict[str, Any], config: dict[str, Any], processes: int, path: Path | None) -> None:
    """Refuse to resume a run of other options, or of another number of processes."""
    before = {**state["config"], "world_size": state["world_size"]}
    after = json.loads(
        json.dumps({**as_json(config), "world_size": processes})
    )  # tuples become lists, as in the file
    different = [
        f"{name} {before.get(name)!r} there, {after.get(name)!r} here"
        for name in sorted({*before, *after} - FREE_ON_RESUME)
        if before.get(name) != after.get(name)
    ]
    if different:
        raise InputError(
            f"{path} is of another run ({'; '.join(different)}): use another --output_dir, "
            "or --overwrite_output_dir"
        )
