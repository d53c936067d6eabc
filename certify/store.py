"""Noisy scores on disk: what was drawn is kept, an interrupted run goes on where it stopped.

A store is a folder with `config.json` (the options that determine the scores, and their hash) and
`scores/INDEX.npz`, one file an image: float64 scores in the order of the noise chunks, and the hash of the
image. Files appear by atomic rename.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from certify.checks import InputError
from certify.files import write_atomic, write_json
from certify.types import FloatArray


def config_hash(config: dict[str, Any]) -> str:
    """Return the SHA-256 (hex) of a JSON-serialisable configuration, whatever the order of its keys."""
    text = json.dumps(config, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ScoreStore:
    """Chunks of noisy scores of one configuration.

    Args:
        folder: created if absent.
        config: JSON-serialisable options that determine every score: sampling options, detector, data. Leave
            out what only extends the scores, such as n or the radii, so that a larger n resumes.

    Raises:
        InputError: if the folder holds scores of another configuration; the message names the options that
            differ.
    """

    def __init__(self, folder: Path | str, config: dict[str, Any]) -> None:
        self.folder = Path(folder)
        # Through JSON and back: what is compared is what a later run reads.
        self.config: dict[str, Any] = json.loads(json.dumps(config, allow_nan=False))
        self.hash = config_hash(self.config)
        path = self.folder / "config.json"
        if path.exists():
            self._compare(path)
        else:
            write_json(path, {"hash": self.hash, "config": self.config})

    def get(self, image_index: int, digest: str = "") -> FloatArray | None:
        """Return the scores kept for an image, (draws,) or (draws, columns), or None.

        `digest` identifies the image; scores of another image under the same index are refused.
        """
        path = self._path(image_index)
        if not path.exists():
            return None
        try:
            # Opened here, since numpy leaves the handle of a damaged archive to the garbage collector.
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                scores, stored_digest = file["scores"], str(file["digest"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: cannot be read ({error}); delete it and run again") from error
        if stored_digest != digest:
            raise InputError(
                f"{path}: holds the scores of another image under index {image_index}; use another folder"
            )
        return np.asarray(scores, dtype=np.float64)

    def put(self, image_index: int, chunks: range, scores: FloatArray, digest: str = "") -> None:
        """Append the scores of the noise chunks `chunks` to those kept for an image.

        Raises:
            InputError: if the chunks do not follow the ones kept, or do not divide the scores evenly.
        """
        kept = self.get(image_index, digest)
        size, rest = divmod(len(scores), len(chunks))
        if rest or chunks.step != 1 or chunks.start * size != (0 if kept is None else len(kept)):
            raise InputError(
                f"store: got {len(scores)} scores for {chunks} of image {image_index}, "
                f"which has {0 if kept is None else len(kept)} scores; chunks are appended in order"
            )
        joined = scores if kept is None else np.concatenate([kept, scores])
        write_atomic(
            self._path(image_index),
            lambda temporary: np.savez(temporary, scores=joined.astype(np.float64), digest=np.array(digest)),
        )

    def _path(self, image_index: int) -> Path:
        return self.folder / "scores" / f"{image_index:07d}.npz"

    def _compare(self, path: Path) -> None:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: is not the configuration of a score store; use another folder"
            ) from error
        if stored == self.config:
            return
        changes = [
            f"{name} was {stored.get(name, 'absent')!r} and is now {self.config.get(name, 'absent')!r}"
            for name in sorted(stored.keys() | self.config.keys())
            if stored.get(name, "absent") != self.config.get(name, "absent")
        ]
        raise InputError(
            f"{self.folder}: holds scores of another configuration ({'; '.join(changes)}); "
            "use another folder or the old options"
        )
