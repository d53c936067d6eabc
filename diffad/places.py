"""Where a detector's data lie on this machine.

Manifests keep no absolute path, so that a folder can be given away. Whoever trained on `folder:/data/parts` still need
not say so again: the path is kept in the user's cache folder, by what the manifest says of detector and data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from certify.checks import InputError
from certify.console import say
from certify.files import write_json
from diffad.manifest import without_paths

PLACES = ("spec", "outliers")  # options of `load_data` that may name folders


def remember_places(manifest: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Keep the absolute paths among the data options of a training; without any, nothing is kept.

    Args:
        manifest: of the training, as it was written.
        options: those of `load_data`, as they were given.
    """
    file = _file(manifest)
    given = json.loads(json.dumps({name: options[name] for name in PLACES if options.get(name)}))
    try:
        if without_paths(given) == given:
            file.unlink(missing_ok=True)  # of the same training on the same data by an absolute path
        else:
            write_json(file, given)
    except OSError as error:  # what was trained is saved; this is a convenience
        say(f"the place of the data could not be kept ({error}); say it with --data, --outliers")


def remembered_places(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data options that were kept for a manifest, with their absolute paths; empty where none are.

    Raises:
        InputError: what was kept cannot be read.
    """
    file = _file(manifest)
    if not file.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        places = {name: found[name] for name in PLACES if name in found}
    except (ValueError, TypeError) as error:
        raise InputError(f"{file}: cannot be read ({error}); delete it, and say --data") from None
    return {name: tuple(place) if isinstance(place, list) else place for name, place in places.items()}


def _file(manifest: Mapping[str, Any]) -> Path:
    """The file of a training: equal networks of other data, or of other outliers, have others."""
    data = manifest["data"]
    named = {name: data["options"][name] for name in PLACES if data["options"].get(name)}
    content = [manifest.get("detectors"), data.get("fingerprint"), without_paths(named)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return user_cache_path("diffad") / "places" / f"{digest}.json"
