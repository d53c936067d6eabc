"""`manifest.json`: what was run, on which data, with which software and machine.

    started = now()
    ...
    manifest = build_manifest("certify", config, data=describe_data(split), seeds={"noise": 0},
                              detectors={detector.name: detector.fingerprint()}, started=started)

Run folders are committed and passed on, so a manifest holds no path of the machine: an absolute path becomes
its last name. Several commands may write one run folder; `merge_manifests` keeps one entry for each of them
and refuses another data set, or another detector of the same name.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, Protocol, runtime_checkable

import torch

from certify.checks import InputError

FORMAT = 1
PACKAGES = (
    "diffad",
    "torch",
    "torchvision",
    "diffusers",
    "accelerate",
    "numpy",
    "scipy",
    "scikit-learn",
    "statsmodels",
)


@runtime_checkable
class Described(Protocol):
    """What a manifest says about a data set; `diffad.data.DataSplit` is one."""

    @property
    def name(self) -> str:
        """For example `digits:8`."""

    @property
    def resolution(self) -> int:
        """Height = width in pixels."""

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""

    @property
    def probe(self) -> Mapping[str, Any]:
        """Outcome of the near-duplicate probe."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What `load_data` needs to build the same split again."""

    def fingerprint(self) -> str:
        """SHA-256 of the content, in hex."""


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


def describe_data(split: Described) -> dict[str, Any]:
    """Name, content fingerprint, size and near-duplicate probe of a data set, without absolute paths."""
    description = {
        "name": split.name,
        "fingerprint": split.fingerprint(),
        "resolution": split.resolution,
        "channels": split.channels,
        "probe": dict(split.probe),
        "options": dict(split.options),
    }
    cleaned: dict[str, Any] = without_paths(description)
    return cleaned


def build_manifest(
    command: str,
    config: Mapping[str, Any],
    *,
    data: Mapping[str, Any],
    detectors: Mapping[str, str],
    seeds: Mapping[str, int],
    started: datetime,
    device: str = "cpu",
    world_size: int = 1,
    argv: Sequence[str] = (),
    attacks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Manifest of one finished command.

    Args:
        command: its name, for example `certify` or `diffad attack`.
        config: every option with the value used, JSON or paths.
        data: from `describe_data`.
        detectors: name of each detector in the rows, and its `fingerprint()`.
        seeds: every seed by name.
        started: from `now()`, when the command began.
        device: where the forward passes ran.
        world_size: number of processes that really took part.
        argv: the words typed, to repeat the command.
        attacks: from `attack_record`, one for each attacked condition.

    """
    portable = without_paths(dict(config))
    finished = now()
    entry = {
        "command": command,
        "argv": without_paths(list(argv)),
        "config": portable,
        "seeds": dict(seeds),
        "run_id": run_id(command, portable, str(data["fingerprint"])),
        "world_size": world_size,
        "hardware": hardware(device),
        "versions": versions(),
        "git": git_state(),
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 1),
        **({"attacks": [dict(record) for record in attacks]} if attacks else {}),
    }
    return {"format": FORMAT, "data": dict(data), "detectors": dict(detectors), "commands": [entry]}


def refuse_another_run(old: Mapping[str, Any], data: Mapping[str, Any], detectors: Mapping[str, str]) -> None:
    """Refuse results of other images, or of another detector of the same name, beside those of a manifest.

    Args:
        old: manifest of the folder.
        data: description of the images of the new results.
        detectors: fingerprint of each detector of the new results, by name.
    """
    for name in ("fingerprint", "resolution"):
        before, after = old["data"][name], data[name]
        if before != after:
            raise InputError(
                f"run folder: holds results of {old['data']['name']} with {name} {before}, "
                f"the new ones have {after}; write them to another folder"
            )
    for name in set(old["detectors"]) & set(detectors):
        if old["detectors"][name] != detectors[name]:
            raise InputError(
                f"run folder: holds results of another {name} (fingerprint {old['detectors'][name][:12]}, "
                f"not {detectors[name][:12]}); write the new ones to another folder"
            )


def merge_manifests(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Manifest of a folder that a further command writes to; an entry of the same run is replaced."""
    refuse_another_run(old, new["data"], new["detectors"])
    replaced = {entry["run_id"] for entry in new["commands"]}
    kept = [entry for entry in old["commands"] if entry["run_id"] not in replaced]
    return {
        **new,
        "detectors": {**old["detectors"], **new["detectors"]},
        "commands": [*kept, *new["commands"]],
    }


def run_id(command: str, config: Mapping[str, Any], fingerprint: str) -> str:
    """Twelve hex digits that depend on the command, its options and the data, and on nothing else."""
    text = json.dumps([command, config, fingerprint], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def without_paths(value: Any) -> Any:
    """`value` with absolute paths cut to their last name, also behind `kind:` or `--option=`, for JSON."""
    if isinstance(value, Mapping):
        return {str(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [without_paths(item) for item in value]
    if isinstance(value, PurePath):
        return without_paths(str(value))
    if not isinstance(value, str):
        return value if value is None or isinstance(value, (bool, int, float)) else str(value)
    for mark in ("=", ":"):
        head, found, tail = value.partition(mark)
        if found and _is_absolute(tail):
            return head + mark + _last_name(tail)
    return _last_name(value) if _is_absolute(value) else value


def _is_absolute(text: str) -> bool:
    windows = PureWindowsPath(text)
    return text.startswith(("/", "~")) or bool(windows.drive and windows.root)


def _last_name(text: str) -> str:
    return PureWindowsPath(text).name or "."


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that decide a number; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_state(root: Path | None = None) -> dict[str, Any] | None:
    """Commit of our own checkout and whether tracked files differ from it; None when this is no checkout.

    A package that is installed inside somebody else's repository must not report that repository's commit, so
    the top of the work tree has to be the folder that holds `diffad`.
    """
    root = Path(__file__).resolve().parent.parent if root is None else root.resolve()

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=False, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    top, commit = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root:
        return None
    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def hardware(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores open to this process, threads of PyTorch, device and, on a GPU, its model."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"cpu": _cpu_model(), "cores": cores, "threads": torch.get_num_threads(), "device": device}
    found["float32_matmul"] = torch.get_float32_matmul_precision()  # "high" and "medium" allow TF32
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return found


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
