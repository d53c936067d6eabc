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
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from certify.checks import InputError
from certify.files import write_atomic, write_json, write_text

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


def write(directory: Path, config: dict[str, Any], tensors: Mapping[str, Tensor], card: str) -> None:
    """Write the folder; config.json last, so that an interrupted write is noticed by its fingerprint."""
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    write_atomic(directory / TENSORS, lambda path: save_file(plain, path, metadata={"format": "pt"}))
    write_text(directory / CARD, card)
    write_json(directory / CONFIG, config)


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
        raise InputError(f"{path}: cannot be read ({one_line(error)}); save the detector again") from error
    if not isinstance(config, dict) or set(config) != set(KEYS):
        given = set(config) if isinstance(config, dict) else set()
        raise InputError(
            f"{path}: is no detector of diffad {version('diffad')}: "
            f"missing {sorted(set(KEYS) - given) or 'nothing'}, "
            f"unknown {sorted(given - set(KEYS)) or 'nothing'}"
        )
    return config


def read_tensors(directory: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of model.safetensors, which must have exactly the names and dtypes of `wanted`."""
    path = directory / TENSORS
    if not path.is_file():
        raise InputError(f"{directory}: holds no {TENSORS}; save the detector again")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); save the detector again") from error
    if set(tensors) != set(wanted):
        missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
        raise InputError(f"{path}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}")
    for key, tensor in tensors.items():
        if tensor.dtype != wanted[key].dtype:
            raise InputError(f"{path}: {key} is {tensor.dtype}, need {wanted[key].dtype}")
    return tensors


def one_line(error: Exception) -> str:
    """Return what an error says, cut to one line."""
    return " ".join(str(error).split())[:200]


def card(config: Mapping[str, Any], summary: str, facts: Mapping[str, Any]) -> str:
    """Return README.md: front matter of the Hub, then what this detector is and how to load it."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in config["arguments"].items()) or "none"
    lines = [f"- {key}: {value}" for key, value in facts.items()]
    return f"""---
library_name: diffad
tags:
- anomaly-detection
- {config["name"]}
---
# {config["name"]}

{summary}

- arguments: {arguments}
- images: {tuple(config["image_shape"])} (channel, height, width) in [0, 1]
- fitted on {config["fit"].get("images", "an unknown number of")} normal images
- threshold: {"not calibrated" if config["threshold"] is None else config["threshold"]}
{chr(10).join(lines)}

```python
from diffad import load_detector

scores = load_detector("path/to/this/folder").score(images)
```
"""
