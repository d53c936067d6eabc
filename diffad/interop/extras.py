"""Packages that only some adapters need: imported when one is used, and named with the command that installs them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from certify.checks import InputError


def optional(module: str, *, extra: str) -> ModuleType:
    """Return a module of an optional package; `InputError` with the pip command of its extra where it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{module}: cannot be imported, there is no {error.name}; install it with: pip install 'diffad[{extra}]'"
        ) from error
