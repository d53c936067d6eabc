"""Where a detector's data lie on this machine.

Manifests keep no absolute path, so that a folder can be given away. Whoever trained on `folder:/data/parts` still need
not say so again: the path is kept in the user's cache folder, by the fingerprint of the detector.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from certify.console import say
from certify.files import write_json
from diffad.manifest import without_paths

KEPT = ("spec", "outliers")


def remember_places(fingerprints: Iterable[str], options: Mapping[str, Any]) -> None:
    """Keep the absolute paths among the data options of a training; without any, nothing is written.

    Args:
        fingerprints: of what was trained.
        options: those of `load_data`.
    """
    asked = {name: options[name] for name in KEPT if options.get(name)}
    if without_paths(asked) == json.loads(json.dumps(asked)):
        return
    try:
        for fingerprint in fingerprints:
            write_json(_file(fingerprint), asked)
    except OSError as error:  # what was trained is saved; this is a convenience
        say(f"the place of the data could not be kept ({error}); say it with --data")


def remembered_places(fingerprints: Iterable[str]) -> dict[str, Any]:
    """Return the data options that were kept, with their absolute paths; empty where none are."""
    for fingerprint in fingerprints:
        file = _file(fingerprint)
        if file.is_file():
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            return {**found, **({"outliers": tuple(found["outliers"])} if "outliers" in found else {})}
    return {}


def _file(fingerprint: str) -> Path:
    return user_cache_path("diffad") / "places" / f"{fingerprint}.json"
