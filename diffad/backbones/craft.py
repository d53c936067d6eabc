"""Attacked images to train on: ascent on a loss within the threat, every draw from a given generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffad.attacks.threat import ThreatModel

# images (b, c, h, w) -> the loss of each (b,), what an attack raises
Losses = Callable[[Tensor], Tensor]
# sees the gradient (b, c, h, w) of each step
Watch = Callable[[Tensor], None]


def ball_start(
    clean: Float[Tensor, "b c h w"], threat: ThreatModel, generator: torch.Generator
) -> Float[Tensor, "b c h w"]:
    """Return a uniform draw from the ball around each image, brought into [0, 1]."""
    if threat.norm == "linf":
        uniform = torch.rand(clean.shape, generator=generator, device=clean.device)
        return threat.project(clean + threat.eps * (2.0 * uniform - 1.0), clean)
    direction = torch.randn(clean.shape, generator=generator, device=clean.device)
    length = direction.flatten(1).norm(dim=1)
    radius = torch.rand(len(clean), generator=generator, device=clean.device) ** (1.0 / clean[0].numel())
    scale = threat.eps * radius / length
    return threat.project(clean + scale[:, None, None, None] * direction, clean)


def ascend(
    losses: Losses,
    start: Float[Tensor, "b c h w"],
    clean: Float[Tensor, "b c h w"],
    threat: ThreatModel,
    sizes: Sequence[float],
    watch: Watch | None = None,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield the point behind each step of projected gradient ascent (Madry et al. 2018); no graph is kept.

    `watch` is shown the gradient of every step.
    """
    points = start.detach()
    for size in sizes:
        leaf = points.detach().requires_grad_(True)  # not `points` itself, which the caller may have kept
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(losses(leaf).sum(), leaf)
        if watch is not None:
            watch(gradient)
        points = threat.project(points + size * threat.ascent(gradient), clean)
        yield points


def last(points: Iterator[Tensor]) -> Tensor:
    """Return the last point of an ascent."""
    *_, end = points
    return end


def constant_steps(eps: float, steps: int) -> list[float]:
    """Return `steps` steps of 2.5 eps / steps, the rule of the literature."""
    return [2.5 * eps / steps] * steps


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while: crafting neither reads nor moves batch statistics."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Hold a network fixed for a while: batch norm neither reads nor moves batch statistics, weights get no gradient.

    The mode of every module and the switch of every parameter are put back, also after an error.
    """
    modes = [(module, module.training) for module in network.modules()]
    switches = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.eval()
    network.requires_grad_(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, switch in switches:
            parameter.requires_grad_(switch)
