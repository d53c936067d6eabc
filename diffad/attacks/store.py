"""Finished batches of attacks on disk: what was searched is kept, and processes that share the work meet there.

A piece of work is a list of batches that is fixed beforehand. Its folder is named by the hash of all that determines
its outcome: detector, images, labels, threat, method, budget, seeds, starting points, code, versions. The same attack
again finds its batches and goes on; any other has another hash and another folder, so that nothing is ever mixed.
A batch appears by atomic rename: an attack that was killed loses the batches in flight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from certify.checks import InputError
from certify.console import progress, say
from certify.files import write_atomic, write_json
from certify.shards import Shard
from certify.store import config_hash

Batch: TypeAlias = dict[str, Tensor]


class AttackStore:
    """Batches of attacks on one detector.

    Args:
        folder: created at the first batch.
        identity: JSON values that name what an attack is given as functions: the fingerprints of the detector, of a
            purifier, of the sources of a transfer, an objective of your own. Two detectors under one identity would
            share their batches.
        shard: the share of this process if several work together (`certify.shards.current_shard`).
    """

    def __init__(self, folder: Path | str, identity: Mapping[str, Any], shard: Shard | None = None) -> None:
        self.folder, self.shard = Path(folder), shard
        packages = {name: version(name) for name in ("diffad", "torch", "numpy")}
        self.identity = {**identity, "versions": packages, "code": code_digest()}

    def collect(
        self, options: Mapping[str, Any], count: int, compute: Callable[[int], Batch], label: str
    ) -> list[Batch]:
        """Return batches 0 to count - 1 of the work that `options` determine; those that are kept are read.

        Every process calls this with the same arguments, computes its share, waits for the others and reads theirs.

        Args:
            options: JSON values; `digest` makes one of a tensor.
            compute: returns a batch, CPU tensors by name, and depends on its number and the options alone.
            label: a readable beginning of the folder's name.
        """
        settings: dict[str, Any] = json.loads(json.dumps({**self.identity, **options}, allow_nan=False))
        name = config_hash(settings)
        folder = self.folder / f"{label}-{name[:16]}"
        write_json(folder / "options.json", settings)
        own = [place for place in range(count) if self.shard is None or self.shard.owns(place)]
        kept: dict[int, Batch] = {}
        for place in progress(own, label):
            found = _read(_path(folder, place), name)
            if found is None:
                found = compute(place)
                _write(_path(folder, place), name, found)
            kept[place] = found
        if self.shard is not None:
            self.shard.barrier()
        return [
            kept[place] if place in kept else self._of_another(folder, place, name) for place in range(count)
        ]

    def _of_another(self, folder: Path, place: int, name: str) -> Batch:
        found = _read(_path(folder, place), name)
        if found is None:
            raise InputError(f"{folder}: lacks a batch of another process; all must see the same folder")
        return found


def collect(
    store: AttackStore | None,
    options: Mapping[str, Any],
    count: int,
    compute: Callable[[int], Batch],
    label: str,
) -> list[Batch]:
    """Return `store.collect(...)`, or without a store all batches as they are computed."""
    if store is None:
        return [compute(place) for place in progress(range(count), label)]
    return store.collect(options, count, compute, label)


@cache
def code_digest() -> str:
    """Return the SHA-256 (hex) of the sources of all attacks: another optimiser must not find this one's batches."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def digest(values: Any) -> str | None:
    """Return the SHA-256 (hex) of a tensor's or array's type, shape and content; None for None."""
    if values is None:
        return None
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    content = np.ascontiguousarray(array)
    return hashlib.sha256(f"{content.dtype} {content.shape} ".encode() + content.tobytes()).hexdigest()


def _path(folder: Path, place: int) -> Path:
    return folder / f"batch-{place:05d}.safetensors"


def _write(path: Path, name: str, batch: Batch) -> None:
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in batch.items()}  # none shared
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata={"hash": name}))


def _read(path: Path, name: str) -> Batch | None:
    """Return a batch that is kept; None if it is not there, or damaged, which is said: it is then computed again."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            stored = (file.metadata() or {}).get("hash")
            batch = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (no dictionary)
    except (SafetensorError, OSError, ValueError) as error:
        say(f"{path}: is damaged ({str(error).splitlines()[0]}); it is computed again")
        return None
    if stored != name:
        say(f"{path}: belongs to another attack; it is computed again")
        return None
    return batch
