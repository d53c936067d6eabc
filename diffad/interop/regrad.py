"""Gradients through code that switches them off.

Libraries that only ever score put `with torch.no_grad():` into the forward pass. The score is right, its gradient is
cut, and a white-box attack finds nothing: the detector looks robust. `gradients_through` undoes that while it lasts;
`without_decorators` and `attached` do for a single function that is decorated, or that detaches what it is given.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _TorchWithGradients:
    """The module `torch`, but for the contexts that switch gradients off, which do nothing."""

    no_grad = staticmethod(nullcontext)
    inference_mode = staticmethod(nullcontext)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def gradients_through(model: nn.Module, package: str) -> Iterator[None]:
    """Let `torch.no_grad()` do nothing in the source files of `package` that define the layers of `model`.

    Only where gradients are recorded outside; everything else in those files stays as it is, and they get back what
    they had. Not for several threads at once.
    """
    if not torch.is_grad_enabled():
        yield
        return
    previous = {module: module.torch for module in _sources(model, package)}
    try:
        for module in previous:
            patch_torch(module, _TorchWithGradients())
        yield
    finally:
        for module, original in previous.items():
            patch_torch(module, original)


class _Attached(TorchFunctionMode):
    """`detach` and `data` of a tensor are itself. A mode, since `torch.export` cannot trace a subclass of tensors."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (Tensor.detach, torch.detach, Tensor.data.__get__):  # type: ignore[attr-defined]
            return args[0]
        return func(*args, **(kwargs or {}))


def attached() -> AbstractContextManager[Any]:
    """Return a context in which no code can take a tensor out of its graph."""
    return _Attached()


def without_decorators(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as it was written, without `@torch.no_grad()` around it; a method takes `self` first."""
    found: Callable[..., Any] = inspect.unwrap(function)
    return found


def patch_torch(module: ModuleType, value: Any) -> None:
    """Set what a source file knows as `torch`."""
    module.__dict__["torch"] = value


def _sources(model: nn.Module, package: str) -> list[Any]:
    names = {type(layer).__module__ for layer in model.modules()}
    found = [sys.modules[name] for name in sorted(names) if name.split(".")[0] == package]
    return [module for module in found if getattr(module, "torch", None) is torch]


@contextmanager
def without_downloads() -> Iterator[None]:
    """Let timm build networks without fetching weights, whatever it is asked for."""
    import timm

    build = timm.create_model

    def create_model(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        network: nn.Module = build(name, pretrained=False, **options)
        return network

    with patch.object(timm, "create_model", create_model):
        yield
