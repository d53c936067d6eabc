"""Batches of all processes as one, so that the negatives of an image are all images of a step.

Each process computes the loss of the whole gathered batch, which is the same number everywhere, and data parallelism
then takes the mean of the processes' gradients. A process reaches its own rows only, so its gradient is multiplied by
the number of processes: the mean is then the gradient of the loss of one process that holds the whole batch.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def processes() -> int:
    """Return how many processes work together."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def gather_classes(rows: Float[Tensor, "views n d"], classes: int) -> Float[Tensor, "views m d"]:
    """Return the rows of all processes; of several classes, each class of all processes in one stretch.

    A process holds n = classes * b images, class by class; m = processes * n. With one process, the rows as they are.
    """
    count = processes()
    if count == 1:
        return rows
    everyone: Tensor = _Gather.apply(rows.contiguous())
    return rearrange(everyone, "p v (k b) d -> v (k p b) d", k=classes)


class _Gather(torch.autograd.Function):
    """Tensors of all processes (processes, ...), differentiable in the own one."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(processes())]
        torch.distributed.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return processes() * gradient[torch.distributed.get_rank()]
