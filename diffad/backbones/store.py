"""The folder of a backbone: config.json, model.safetensors, README.md. Never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from certify.checks import InputError
from diffad import folder

CLASS = "Backbone"
VALUES = ("arch", "arguments", "mean", "std", "resolution", "facts")
KEYS = ("_class_name", "_diffad_version", *VALUES, "fingerprint")


def write(
    directory: Path, config: Mapping[str, Any], fingerprint: str, tensors: Mapping[str, Tensor]
) -> None:
    """Write the folder; config.json last, so that an interrupted write is noticed by its fingerprint."""
    directory.mkdir(parents=True, exist_ok=True)
    whole = {"_class_name": CLASS, "_diffad_version": version("diffad"), **config, "fingerprint": fingerprint}
    folder.write(directory, whole, tensors, card(config))


def read_config(directory: Path) -> dict[str, Any]:
    """Return config.json after checking that it has exactly the keys of a backbone."""
    path = directory / folder.CONFIG
    if not path.is_file():
        raise InputError(f"{directory}: holds no {folder.CONFIG}; need a folder that a backbone was saved to")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read ({folder.one_line(error)})") from error
    given = set(config) if isinstance(config, dict) else set()
    if given != set(KEYS) or config["_class_name"] != CLASS:
        raise InputError(
            f"{path}: is no backbone of diffad {version('diffad')}: missing "
            f"{sorted(set(KEYS) - given) or 'nothing'}, unknown {sorted(given - set(KEYS)) or 'nothing'}"
        )
    if not isinstance(config["arguments"], dict) or not isinstance(config["facts"], dict):
        raise InputError(f"{path}: arguments and facts must be JSON objects")
    return dict(config)


def load_tensors(module: nn.Module, directory: Path) -> None:
    """Fill the module from model.safetensors, which must have exactly its names, dtypes and shapes."""
    tensors = folder.read_tensors(directory, module.state_dict())
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise InputError(f"{directory / folder.TENSORS}: {folder.one_line(error)}") from error


def card(config: Mapping[str, Any]) -> str:
    """Return README.md: what the backbone is, what is said about it, how to load it."""
    facts = [f"- {key}: {value}" for key, value in config["facts"].items()] or ["- none"]
    return f"""---
library_name: diffad
tags:
- image-feature-extraction
---
# {config["arch"]} {json.dumps(config["arguments"])}

Images in [0, 1] to features; trained at {config["resolution"]} x {config["resolution"]} pixels, mean {config["mean"]},
std {config["std"]} inside. What is said below about robustness was written by whoever made the weights;
`diffad backbones measure` measures it.

{chr(10).join(facts)}

```python
from diffad.backbones import load_backbone

features = load_backbone("path/to/this/folder").features(images)
```
"""
