"""Ways to differentiate a reconstruction R(noisy, sigma), each by a name that lands in a result.

| name           | value            | gradient                                                                     |
|----------------|------------------|------------------------------------------------------------------------------|
| (none)         | R                | exact                                                                        |
| `checkpointed` | R                | exact; each step of a chain is recomputed on the way back, which saves memory |
| `1_shot`, ...  | a shorter chain  | exact, of the surrogate process (Lee & Kim, ICCV 2023)                       |
| `bpda`         | R                | identity (BPDA, Athalye et al., ICML 2018)                                   |

The identity is a floor: a defence that holds against it alone has shown nothing. Whatever is differentiated, what it
finds is judged by R itself.
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
    """A purifier that offers its reconstruction with other gradients."""

    def processes(self) -> dict[str, Reconstruct]:
        """Return reconstructions (noisy, sigma) -> images by name."""


def processes_of(purifier: Any) -> dict[str, Reconstruct]:
    """Return what a purifier offers beside its `reconstruct`; at least `bpda`."""
    if isinstance(purifier, Differentiable):
        return purifier.processes()
    return {"bpda": straight_through(purifier.reconstruct)}


def straight_through(reconstruct: Reconstruct) -> Reconstruct:
    """Return the same function with the identity for a gradient: backward pass differentiable approximation."""

    def forward(noisy: Tensor, sigma: float) -> Tensor:
        with torch.no_grad():
            moved = reconstruct(noisy, sigma) - noisy
        return noisy + moved

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
