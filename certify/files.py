"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomic(path: Path | str, write: Callable[[Path], object]) -> None:
    """Call `write(temporary)` on a sibling of `path`, then rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write text (UTF-8) by atomic rename."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write bytes by atomic rename."""
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON by atomic rename; NaN and infinity are refused, since JSON has neither."""
    write_text(path, json.dumps(value, indent=2, sort_keys=False, allow_nan=False) + "\n")
