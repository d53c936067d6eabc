"""Whose code may run because a detector's folder names it.

The folder of a function holds its name, and images on which it is called to see that it still gives the same scores. A
name such as `pickle:loads`, beside "images" that somebody has prepared, would run whatever these say. A folder is data:
it may name functions of the user's own modules only, which lie in the current folder, or of modules that the user has
listed. A name that the user types (`--detector module:function`) is his own wish and not asked about.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certify.checks import InputError

VARIABLE = "DIFFAD_TRUSTED_MODULES"  # names, comma separated


def check_trusted(what: str) -> None:
    """Refuse `module:function` before its module is imported, unless it is the user's own or listed."""
    package = what.partition(":")[0].partition(".")[0]
    if package in _listed() or _in_current_folder(package):
        return
    raise InputError(
        f"callable:{what}: this detector's folder would run code of {package!r}, which is no module of the current "
        f"folder; name the function yourself (module:function), or set {VARIABLE}={package}"
    )


def check_own(found: Any, what: str) -> None:
    """Refuse a function that the user's module has only imported: `my_scores:pickle.loads`."""
    package = what.partition(":")[0].partition(".")[0]
    defined = str(getattr(found, "__module__", None)).partition(".")[0]
    if package in _listed() or defined == package or isinstance(found, nn.Module):
        return
    raise InputError(
        f"callable:{what}: is defined in {defined!r}, not in {package!r} itself, and its folder would run it; name "
        f"the function yourself (module:function), or set {VARIABLE}={package}"
    )


def source_digest(what: str, scorer: Any) -> Tensor:
    """Return the SHA-256 (32 bytes, uint8) of the files that `module` of `module:function` and the scorer come from.

    What those files import is not looked at.
    """
    digest = hashlib.sha256()
    for path in _sources(what, scorer):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return torch.from_numpy(np.frombuffer(digest.digest(), dtype=np.uint8).copy())


def _sources(what: str, scorer: Any) -> Iterator[Path]:
    module = sys.modules.get(what.partition(":")[0])
    try:
        code = inspect.unwrap(scorer)
        of_scorer = inspect.getsourcefile(code if inspect.isroutine(code) else type(code))
    except (TypeError, ValueError, OSError):  # written in C, wrapped round itself, or typed into a notebook
        of_scorer = None
    for name in (getattr(module, "__file__", None), of_scorer):
        if name is not None and Path(name).is_file():  # not the input of an interpreter
            yield Path(name)


def _listed() -> list[str]:
    return [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]


def _in_current_folder(package: str) -> bool:
    """Say whether importing `package` runs a file of the current folder; an earlier import comes before that."""
    here = [Path(f"{package}.py").resolve(), (Path(package) / "__init__.py").resolve()]
    if package in sys.modules:
        loaded = getattr(sys.modules[package], "__file__", None)
        return loaded is not None and Path(loaded).resolve() in here
    return package not in sys.builtin_module_names and any(path.is_file() for path in here)
