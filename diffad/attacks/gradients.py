"""Ways to differentiate a reconstruction R(noisy, sigma), each by a name that lands in a result.

| name           | value            | gradient                                                                     |
|----------------|------------------|------------------------------------------------------------------------------|
| (none)         | R                | exact                                                                        |
| `checkpointed` | R                | exact; each step of a chain is recomputed on the way back, which saves memory |
| `1_shot`, ...  | a shorter chain  | exact, of the surrogate process (Lee & Kim, ICCV 2023)                       |
| `bpda`         | R                | identity (BPDA, Athalye et al., ICML 2018)                                   |
| `bpda_constant`| R                | zero: the reconstruction is taken for a constant                             |

A score of R alone (purify, then detect) gets nothing from the constant, and a score of the residual x - R nothing from
the identity, which cancels: each is offered where it says something. Both are a floor: a defence that holds against
them alone has shown nothing. Whatever is differentiated, what it finds is judged by R itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Reconstruct: TypeAlias = Callable[[Tensor, float], Tensor]
Run: TypeAlias = Callable[..., Tensor]  # calls a step of a chain: `run`, or `run_checkpointed`


@runtime_checkable
class Differentiable(Protocol):
    """A purifier that offers more than its reconstruction and the approximations of its gradient."""

    def processes(self) -> dict[str, Reconstruct]:
        """Return reconstructions (noisy, sigma) -> images by name."""


def processes_of(purifier: Any, *, residual: bool) -> dict[str, Reconstruct]:
    """Return what may be differentiated in the place of `purifier.reconstruct`, by name.

    `residual` says that the score compares the image with its reconstruction.
    """
    offered = purifier.processes() if isinstance(purifier, Differentiable) else {}
    if residual:
        return {"bpda_constant": held_constant(purifier.reconstruct), **offered}
    return {"bpda": straight_through(purifier.reconstruct), **offered}


def straight_through(reconstruct: Reconstruct) -> Reconstruct:
    """Return the same function with the identity for a gradient: backward pass differentiable approximation."""

    def forward(noisy: Tensor, sigma: float) -> Tensor:
        with torch.no_grad():
            moved = reconstruct(noisy, sigma) - noisy
        return noisy + moved

    return forward


def held_constant(reconstruct: Reconstruct) -> Reconstruct:
    """Return the same function without a gradient: it reads no more than the clean reference then."""

    def forward(noisy: Tensor, sigma: float) -> Tensor:
        with torch.no_grad():
            return reconstruct(noisy, sigma)

    return forward


def run(step: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call a step of a chain, keeping its activations for the gradient."""
    return step(*arguments)


def run_checkpointed(step: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Call a step of a chain, keeping its input alone: on the way back the step is computed again.

    A step must draw nothing: its noise comes in its arguments, so that it is computed again with the same.
    """
    result: Tensor = checkpoint(step, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result
