"""Running a score in float64, where differences tell a derivative from rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn


def modules_behind(something: Any) -> list[nn.Module]:
    """Return the modules that an object computes with.

    Looks into methods, partials, closures, attributes, lists, tuples and dictionaries; not into modules, whose own
    children come with them, nor into global variables.
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    open_ = [something]
    while open_:
        one = open_.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, nn.Module):
            found[id(one)] = one
        else:
            open_ += _parts(one)
    return list(found.values())


def _parts(one: Any) -> list[Any]:
    if isinstance(one, MethodType):
        return [one.__self__]
    if isinstance(one, FunctionType):
        return [cell.cell_contents for cell in one.__closure__ or () if _filled(cell)]
    if isinstance(one, partial):
        return [one.func, *one.args, *one.keywords.values()]
    if isinstance(one, dict):
        return list(one.values())
    if isinstance(one, (list, tuple)):
        return list(one)
    return [] if isinstance(one, (type, Tensor)) else list(getattr(one, "__dict__", {}).values())


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (an empty cell raises)
    except ValueError:
        return False
    return True


@contextmanager
def in_float64(something: Any) -> Iterator[None]:
    """Turn all floating-point parameters and buffers behind an object into float64, and put the very tensors back."""
    kept: list[tuple[nn.Module, str, Tensor]] = []
    changed: list[tuple[nn.Parameter, Tensor]] = []
    for module in {id(part): part for root in modules_behind(something) for part in root.modules()}.values():
        changed += [(p, p.data) for p in module._parameters.values() if p is not None]
        kept += [(module, name, b) for name, b in module._buffers.items() if b is not None]
    try:
        for parameter, value in changed:
            parameter.data = _double(value)
        for module, name, buffer in kept:
            module._buffers[name] = _double(buffer)
        yield
    finally:
        for parameter, value in changed:
            parameter.data = value
        for module, name, buffer in kept:
            module._buffers[name] = buffer


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64) if tensor.is_floating_point() else tensor
