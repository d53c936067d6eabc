"""Smoother stand-ins for a largest or smallest value, as surrogate objectives.

A maximum over a map has a gradient in one place alone, a nearest neighbour in one direction; an attack may do better
on a function that moves many places at once. What it finds is judged by the true score.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

TOP_SHARE = 0.1  # of a map, for the mean of its largest values
SHARPNESS = 20.0  # the temperature is the largest (smallest) value over this


def top_mean(values: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return the mean (b,) of the largest tenth of the values, of one at least."""
    count = max(1, math.ceil(TOP_SHARE * values.shape[1]))
    return values.topk(count, dim=1).values.mean(1)


def soft_maximum(values: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return T log mean exp(v / T), T a twentieth of the largest |v| of each row: at most the maximum."""
    scale = _temperature(values.abs().amax(1, keepdim=True))
    return scale[:, 0] * ((values / scale).logsumexp(1) - math.log(values.shape[1]))


def soft_minimum(values: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Return -T log mean exp(-v / T), T a twentieth of the smallest |v| of each row: at least the minimum."""
    scale = _temperature(values.abs().amin(1, keepdim=True))
    return -scale[:, 0] * ((-values / scale).logsumexp(1) - math.log(values.shape[1]))


def _temperature(values: Tensor) -> Tensor:
    """Return T without a graph: a gradient through it would be of another function."""
    return (values.detach() / SHARPNESS).clamp_min(torch.finfo(values.dtype).eps)


def _mean(values: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    return values.mean(1)


# Of an anomaly map (b, n) whose largest value is the score.
MAP_SUMMARIES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean_map": _mean,
    "top_map": top_mean,
    "soft_map": soft_maximum,
}
