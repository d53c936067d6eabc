"""Opening a file of weights: safetensors and plain PyTorch files always, pickles only when trusted by their SHA-256.

A pickle runs code while it is read. `weights_only` reads what needs none; published files that need more (dill
containers, NumPy scalars) are refused with their SHA-256, and opened in full only if the same hash is given back.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from certify.checks import InputError
from diffad.folder import one_line

CONTAINERS = ("model", "state_dict", "model_state_dict", "unaveraged_model_state_dict")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path, *, trust_pickle: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of a file by name, and what else it held that is a number or a text.

    Args:
        path: *.safetensors, or anything that `torch.save` wrote: a state dict, or a dictionary that holds one under
            `model`, `state_dict` or `model_state_dict` (averaged weights come before unaveraged ones).
        trust_pickle: the SHA-256 of the file, if it may run code.

    Raises:
        InputError: not a file of weights; a pickle that is not trusted, with the hash to give.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path), {}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: cannot be read ({one_line(error)})") from error
    whole = _open(path, trust_pickle)
    if not isinstance(whole, Mapping):
        raise InputError(f"{path}: holds a {type(whole).__name__}, need a state dict")
    found = next((whole[name] for name in CONTAINERS if isinstance(whole.get(name), Mapping)), whole)
    tensors = {name: value for name, value in found.items() if isinstance(value, Tensor)}
    others = sorted(str(name) for name in set(found) - set(tensors))
    if not tensors or others:
        raise InputError(
            f"{path}: need a state dict of tensors; these are none: {others[:5] or 'it is empty'}"
        )
    facts = {
        str(name): value
        for name, value in whole.items()
        if isinstance(value, (int, float, str)) and value == value
    }
    return tensors, facts


def _check_complete(path: Path) -> None:
    """Refuse what `torch.save` can't have written: to trust such a file would be the wrong advice."""
    with path.open("rb") as file:
        head = file.read(2)
    if head == b"PK" and not zipfile.is_zipfile(path):
        raise InputError(f"{path}: is cut off or damaged; get the file again")
    if head != b"PK" and not head.startswith(b"\x80"):
        raise InputError(
            f"{path}: is no checkpoint, neither of torch.save nor safetensors; get the file again"
        )


def _open(path: Path, trust_pickle: str | None) -> Any:
    """Return what `torch.save` wrote, without running code unless the file is trusted."""
    _check_complete(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError) as error:
        reason = error
    digest = sha256(path)
    if trust_pickle is None:
        raise InputError(
            f"{path}: holds more than weights ({one_line(reason)[:80]}); opening it would run its code. If you trust "
            f"where it comes from, give --trust_pickle {digest}"
        )
    if trust_pickle.lower() != digest:
        raise InputError(
            f"--trust_pickle: got {trust_pickle}, but {path.name} has the SHA-256 {digest}; it is not opened"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from error
    except ModuleNotFoundError as error:
        missing = error.name or "a package"
        hint = "" if importlib.util.find_spec("dill") else "; files of MadryLab need dill"
        raise InputError(
            f"{path}: needs {missing} to be opened{hint}; pip install it for this once"
        ) from error
