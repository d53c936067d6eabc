"""The folder of a detector: config.json, model.safetensors, README.md. Never a pickle.

config.json names the class and holds everything but the tensors; its fingerprint ties it to the tensors
beside it, so a damaged or mixed folder is refused, not scored with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from certify.checks import InputError
from certify.files import write_atomic, write_json, write_text

if TYPE_CHECKING:
    from diffad.detector import Detector

D = TypeVar("D", bound="Detector")

CONFIG, TENSORS, CARD = "config.json", "model.safetensors", "README.md"
KEYS = (
    "_class_name",
    "_diffad_version",
    "name",
    "arguments",
    "image_shape",
    "threshold",
    "fit",
    "fingerprint",
)


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 (hex) over JSON values and over names, dtypes, shapes and bytes of tensors."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(detector: Detector, directory: Path) -> None:
    """Write the folder; config.json last, so that an interrupted write is noticed by its fingerprint."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors = dict(detector.named_buffers(recurse=False))
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write_atomic(directory / TENSORS, lambda path: save_file(plain, path, metadata={"format": "pt"}))
    detector._save_parts(directory)
    write_text(directory / CARD, _card(detector))
    assert detector.image_shape is not None
    values = (
        type(detector).__name__,
        version("diffad"),
        detector.name,
        detector.config(),
        list(detector.image_shape),
        detector.threshold_,
        detector.fit_info,
        detector.fingerprint(),
    )
    write_json(directory / CONFIG, dict(zip(KEYS, values, strict=True)))


def read_config(directory: Path) -> dict[str, Any]:
    """Return config.json after checking that it has exactly the keys of a detector."""
    path = directory / CONFIG
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; need one written by save_pretrained")
    if not path.is_file():
        raise InputError(f"{directory}: holds no {CONFIG}; need a folder written by save_pretrained")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)}); save the detector again") from error
    if not isinstance(config, dict) or set(config) != set(KEYS):
        given = set(config) if isinstance(config, dict) else set()
        raise InputError(
            f"{path}: is no detector of diffad {version('diffad')}: "
            f"missing {sorted(set(KEYS) - given) or 'nothing'}, "
            f"unknown {sorted(given - set(KEYS)) or 'nothing'}"
        )
    return config


def load(cls: type[D], directory: Path) -> D:
    """Build a detector of exactly `cls` from a folder; strict about class, keys, shapes and content."""
    config = read_config(directory)
    where = directory / CONFIG
    if config["_class_name"] != cls.__name__ or config["name"] != getattr(cls, "name", None):
        raise InputError(
            f"{where}: holds a {config['_class_name']} ({config['name']}), not a {cls.__name__}; "
            "load_detector finds the class"
        )
    try:
        detector = cls(**config["arguments"])
        channel, height, width = (int(side) for side in config["image_shape"])
        detector.image_shape = (channel, height, width)
        detector.threshold_ = None if config["threshold"] is None else float(config["threshold"])
        detector.fit_info = {str(key): int(value) for key, value in config["fit"].items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{where}: {_one_line(error)}; save the detector again") from error
    _load_buffers(detector, directory)
    detector._load_parts(directory)
    detector.eval()
    if detector.fingerprint() != config["fingerprint"]:
        raise InputError(
            f"{directory}: {CONFIG} and the tensors beside it do not belong together, or were changed since; "
            "save the detector again"
        )
    return detector


def _load_buffers(detector: Detector, directory: Path) -> None:
    """Fill the buffers, empty until now, from model.safetensors: the same names and dtypes, no others."""
    path = directory / TENSORS
    if not path.is_file():
        raise InputError(f"{directory}: holds no {TENSORS}; save the detector again")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)}); save the detector again") from error
    wanted = dict(detector.named_buffers(recurse=False))
    if set(tensors) != set(wanted):
        missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
        raise InputError(f"{path}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    for key, tensor in tensors.items():
        if tensor.dtype != wanted[key].dtype:
            raise InputError(f"{path}: {key} is {tensor.dtype}, need {wanted[key].dtype}")
        setattr(detector, key, tensor)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _card(detector: Detector) -> str:
    """Return README.md: front matter of the Hub, then what this detector is and how to load it."""
    summary = (type(detector).__doc__ or "").strip().splitlines()[0]
    arguments = ", ".join(f"{key}={value!r}" for key, value in detector.config().items()) or "none"
    threshold = "not calibrated" if detector.threshold_ is None else f"{detector.threshold_:.6g}"
    return f"""---
library_name: diffad
tags:
- anomaly-detection
- {detector.name}
---
# {detector.name}

{summary}

- arguments: {arguments}
- images: {detector.image_shape} (channel, height, width) in [0, 1]
- fitted on {detector.fit_info.get("images", 0)} normal images, seed {detector.fit_info.get("seed", 0)}
- threshold: {threshold}
- proven L2 Lipschitz constant of the score: {detector.lipschitz}; of the pair score in its reference:
{detector.pair_lipschitz}

```python
from diffad import load_detector

scores = load_detector("path/to/this/folder").score(images)
```
"""
