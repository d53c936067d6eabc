"""The append-only log of a score store: a header, then records of one fixed size.

A record holds the scores of one noise chunk of one image, and a checksum. Appending costs its own bytes and nothing
else. A writer that dies in the middle of a write leaves a last record that is too short, which readers skip; a record
damaged otherwise fails its checksum. Scores of 10 000 draws an image take 44.8 kB an image in float32.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from certify.checks import InputError
from certify.types import FloatArray

MAGIC = b"certify1"
_HEADER = np.dtype(
    [("magic", "S8"), ("config", "V8"), ("dtype", "S4"), ("draws", "<u4"), ("columns", "<u4"), ("crc", "<u4")]
)

# (draws,) or (draws, columns), in the dtype in which they were computed: float32 or float64
Scores: TypeAlias = np.ndarray[Any, np.dtype[np.floating]]
# image index, first 8 bytes of the image's digest in hex, chunk number, scores
Record: TypeAlias = tuple[int, str, int, Scores]


@dataclass(frozen=True)
class Layout:
    """What one record holds: `draws` scores in `dtype`, each of `columns` values (0: a plain number)."""

    dtype: str
    draws: int
    columns: int

    @classmethod
    def of(cls, chunks: Sequence[Scores]) -> Layout:
        """Return the layout of chunks of scores, (draws,) or (draws, columns), float32 or float64."""
        kinds = sorted({(str(scores.dtype), scores.shape) for scores in chunks})
        dtype, shape = kinds[0]
        if len(kinds) > 1 or dtype not in ("float32", "float64") or len(shape) not in (1, 2) or 0 in shape:
            raise InputError(
                f"store: got {', '.join(f'{kind} {size}' for kind, size in kinds)}, need chunks of one kind, "
                "float32 or float64, (draws,) or (draws, columns)"
            )
        return cls(f"<f{np.dtype(dtype).itemsize}", shape[0], 0 if len(shape) == 1 else shape[1])

    @property
    def record(self) -> np.dtype[Any]:
        """The numpy type of a record; the checksum covers all that stands before it."""
        shape = (self.draws, self.columns) if self.columns else (self.draws,)
        return np.dtype(
            [
                ("image", "<u8"),
                ("digest", "V8"),
                ("chunk", "<u4"),
                ("scores", self.dtype, shape),
                ("crc", "<u4"),
            ]
        )

    def header(self, config_hash: str) -> bytes:
        """Return the first bytes of a log of this layout and configuration."""
        head = np.zeros((), _HEADER)
        head["magic"], head["dtype"] = MAGIC, self.dtype.encode()
        head["config"] = np.void(bytes.fromhex(config_hash[:16]))
        head["draws"], head["columns"] = self.draws, self.columns
        head["crc"] = zlib.crc32(head.tobytes()[:-4])
        return head.tobytes()

    def records(self, image_index: int, digest: str, chunks: Mapping[int, Scores]) -> bytes:
        """Return the records of some chunks of one image."""
        records = np.zeros(len(chunks), self.record)
        records["image"] = image_index
        records["digest"] = np.void(bytes.fromhex(digest[:16]))
        for record, (chunk, scores) in zip(records, chunks.items(), strict=True):
            record["chunk"], record["scores"] = chunk, scores
            record["crc"] = zlib.crc32(record.tobytes()[:-4])
        return records.tobytes()

    def __str__(self) -> str:
        """What stands in an error."""
        return f"{max(1, self.columns)} score(s) a draw in {np.dtype(self.dtype)}"


def image_digest(pixels: FloatArray) -> str:
    """Return the SHA-256 (hex) of an image; a log keeps its first 16 digits."""
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def create_log(folder: Path, layout: Layout, config_hash: str) -> Path:
    """Create the next free log in a folder, with its header; no two writers get the same one."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("scores-*.bin")))
    while True:
        path = folder / f"scores-{number:05d}.bin"
        try:
            with path.open("xb", buffering=0) as file:
                file.write(layout.header(config_hash))
            return path
        except FileExistsError:
            number += 1


def append_records(path: Path, records: bytes) -> None:
    """Append to a log in one write. Raises OSError if not all of it can be written."""
    with path.open("ab", buffering=0) as file:
        if file.write(records) != len(records):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_layout(path: Path, config_hash: str) -> Layout | None:
    """Return the layout of a log, or None if its writer died before the header was whole.

    Raises:
        InputError: if the file is not a log of this configuration.
    """
    with path.open("rb") as file:
        start = file.read(_HEADER.itemsize)
    if len(start) < _HEADER.itemsize:
        return None
    head = np.frombuffer(start, _HEADER)[0]
    if head["magic"] != MAGIC or int(head["crc"]) != zlib.crc32(start[:-4]):
        raise InputError(f"{path}: is not a log of noisy scores; delete it and run again")
    if head["config"].tobytes().hex() != config_hash[:16]:
        raise InputError(f"{path}: was written under another configuration; use another folder")
    return Layout(head["dtype"].decode(), int(head["draws"]), int(head["columns"]))


def read_records(path: Path, layout: Layout, start: int) -> tuple[Iterator[Record], int, int]:
    """Read the whole records of a log from byte `start` (0: the first record).

    Returns the sound records, the number of damaged ones, and the byte where reading goes on later. The scores are
    views of one buffer.
    """
    start, kind = max(start, _HEADER.itemsize), layout.record
    with path.open("rb") as file:
        count = max(0, os.fstat(file.fileno()).st_size - start) // kind.itemsize
        file.seek(start)
        buffer = np.fromfile(file, kind, count)
    raw = buffer.view(np.uint8).reshape(len(buffer), kind.itemsize)
    checksums = buffer["crc"].tolist()
    sound = [row for row, checksum in enumerate(checksums) if zlib.crc32(raw[row, :-4].data) == checksum]
    images, digests, chunks, scores = (buffer[name] for name in ("image", "digest", "chunk", "scores"))
    records = (
        (int(images[row]), digests[row].tobytes().hex(), int(chunks[row]), scores[row]) for row in sound
    )
    return records, len(buffer) - len(sound), start + len(buffer) * kind.itemsize
