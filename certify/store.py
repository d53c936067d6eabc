"""Noisy scores on disk: what was drawn is kept, an interrupted run goes on where it stopped.

A store is a folder with `config.json` (the options that determine the scores, and their hash) and append-only logs
`scores-NUMBER.bin` (`certify.log`). Every writer begins a log of its own at its first batch, so processes never wait
for each other and nothing that was written is touched again. Draws are keyed, so two writers of one chunk write the
same scores, and the first read counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from certify.checks import InputError
from certify.console import say
from certify.files import write_json
from certify.log import Layout, Scores, append_records, create_log, read_layout, read_records
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

        store = ScoreStore("draws", {**smoothed.sampling_config(), "detector": "my network, epoch 40"})
        smoothed.bounds(images, indices, radii, store=store)
    """

    def __init__(self, folder: Path | str, config: dict[str, Any]) -> None:
        self.folder = Path(folder)
        # Through JSON and back: what is compared is what a later run reads.
        self.config: dict[str, Any] = json.loads(json.dumps(config, allow_nan=False))
        self.hash = config_hash(self.config)
        self._kept: dict[int, tuple[str, dict[int, Scores]]] = {}
        self._layout: Layout | None = None
        self._read_to: dict[Path, int] = {}
        self._own: Path | None = None
        path = self.folder / "config.json"
        if path.exists():
            self._compare(path)
        else:
            write_json(path, {"hash": self.hash, "config": self.config})
        self.refresh()

    def refresh(self) -> None:
        """Read what other writers have appended since the last look.

        A record cut short at the end of a log (a writer was killed) is not there yet; a damaged one is left out
        and said so: its draws are made again.
        """
        for path in sorted(self.folder.glob("scores-*.bin")):
            layout = read_layout(path, self.hash)
            if layout is None:
                continue
            self._agree(layout, path)
            records, damaged, self._read_to[path] = read_records(path, layout, self._read_to.get(path, 0))
            if damaged:
                say(f"{path}: {damaged} damaged records left out; their draws are made again")
            for image_index, digest, chunk, scores in records:
                self._chunks(image_index, digest).setdefault(chunk, scores)

    def chunks(self, image_index: int, digest: str) -> dict[int, Scores]:
        """Return the chunks kept for an image by their number; see `image_digest`.

        Raises:
            InputError: if scores of another image are kept under that index.
        """
        return dict(self._chunks(image_index, digest)) if image_index in self._kept else {}

    def digests(self) -> dict[int, str]:
        """Return the digest of each image kept, by index: as much of it as a log holds, which `get` accepts."""
        return {image_index: key for image_index, (key, _) in sorted(self._kept.items())}

    def get(self, image_index: int, digest: str) -> FloatArray | None:
        """Return the scores kept for an image without a gap, (draws,) or (draws, columns), or None."""
        kept = self.chunks(image_index, digest)
        leading: list[Scores] = []
        while len(leading) in kept:
            leading.append(kept[len(leading)])
        return np.concatenate(leading).astype(np.float64) if leading else None

    def put(self, image_index: int, digest: str, chunks: Mapping[int, Scores]) -> None:
        """Append noise chunks of an image by their number, all in one write; those kept are skipped.

        Raises:
            InputError: if the chunks differ in kind from those kept.
        """
        kept = self._chunks(image_index, digest)
        new = {chunk: scores for chunk, scores in chunks.items() if chunk not in kept}
        if not new:
            return
        layout = Layout.of(list(new.values()))
        self._agree(layout, self.folder)
        records = layout.records(image_index, digest, new)
        try:
            if self._own is None:
                self._own = create_log(self.folder, layout, self.hash)
            append_records(self._own, records)
        except OSError as error:
            self._own = None  # its end may be torn: go on in another file
            raise InputError(
                f"{self.folder}: cannot be written ({error.strerror}); what was drawn is kept, run again"
            ) from error
        kept.update(new)

    def _chunks(self, image_index: int, digest: str) -> dict[int, Scores]:
        """Return the live chunks of an image; refuse another image under its index."""
        key = digest[:16]
        stored, chunks = self._kept.setdefault(image_index, (key, {}))
        if stored != key:
            raise InputError(
                f"{self.folder}: holds the scores of another image under index {image_index}; use another folder"
            )
        return chunks

    def _agree(self, layout: Layout, path: Path) -> None:
        if self._layout not in (None, layout):
            raise InputError(
                f"{path}: holds {layout} where the store holds {self._layout}; use another folder"
            )
        self._layout = layout

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
