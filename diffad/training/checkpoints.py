"""Checkpoint folders `checkpoint-N` from which a training resumes to the same bits.

A checkpoint is a few safetensors files and one JSON; nothing in it is a pickle. It is written under another
name and renamed when whole, so a process killed at any moment leaves either all of it or none.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from certify.checks import InputError

_NAME = re.compile(r"checkpoint-(\d+)")
_UNFINISHED = ".unfinished-"


def list_checkpoints(folder: Path | str) -> list[tuple[int, Path]]:
    """Return (step, path) of every whole checkpoint in `folder`, by increasing step."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    named = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return sorted((int(match[1]), path) for match, path in named if match)


def find_checkpoint(folder: Path | str, resume: str | None) -> Path | None:
    """Return the checkpoint that `resume` names: None, `latest` of `folder` (None if it has none), or a path.

    Raises:
        InputError: the path is not a checkpoint. A missing one never means a fresh start.
    """
    if resume is None:
        return None
    if resume == "latest":
        found = list_checkpoints(folder)
        return found[-1][1] if found else None
    for path in (Path(resume), Path(folder) / resume):
        if (path / "state.json").is_file():
            return path
    raise InputError(f"--resume_from_checkpoint: {resume} is not a checkpoint folder (it has no state.json)")


def save_checkpoint(
    folder: Path | str,
    step: int,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    limit: int | None = None,
) -> Path:
    """Write `folder/checkpoint-{step}`: one safetensors file for each entry of `tensors`, and `state.json`.

    Afterwards only the newest `limit` checkpoints stay. JSON keeps finite floats to the bit.
    """
    folder = Path(folder)
    final = folder / f"checkpoint-{step}"
    partial = folder / f"{_UNFINISHED}{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, group in tensors.items():
        plain = {key: value.detach().to("cpu").contiguous() for key, value in group.items()}
        save_file(plain, partial / f"{name}.safetensors")
    (partial / "state.json").write_text(json.dumps(state, allow_nan=False, indent=1), encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        _sync(path)
    if final.exists():  # left by a run that was resumed from an earlier step
        shutil.rmtree(final)
    os.replace(partial, final)
    _sync(folder)
    if limit is not None:
        for _, old in list_checkpoints(folder)[:-limit]:
            shutil.rmtree(old)
    return final


def load_checkpoint(path: Path | str) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return what `save_checkpoint` was given: tensors on the CPU, and the state."""
    path = Path(path)
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}, state


def remove_unfinished(folder: Path | str) -> None:
    """Remove what a killed process left half written."""
    for path in Path(folder).glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path)


def split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimiser's state into tensors (keys `parameter.name`) and JSON values."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for index, entries in whole["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else values)[f"{index}.{name}"] = value
    return tensors, {"values": values, "param_groups": whole["param_groups"]}


def join_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Put back what `split_optimizer` gave; torch refuses another number of parameters."""
    entries: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **state["values"]}.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    groups = [
        {
            key: tuple(value) if isinstance(value, list) and key != "params" else value
            for key, value in group.items()
        }
        for group in state["param_groups"]
    ]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _sync(path: Path) -> None:
    """Push a file, or the names in a folder, to the disk; folders cannot be opened for this on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
