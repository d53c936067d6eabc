"""Four disjoint parts of a data set, and the rules that keep them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from certify.checks import InputError
from diffad.data.records import ImageSet

PARTS = ("train", "calibration", "validation", "test")


@dataclass(frozen=True, eq=False)
class DataSplit:
    """A data set ready for use: what is learnt from, what sets thresholds, what chooses, what is reported.

    `train` and `calibration` hold normals only. `validation` holds held-out normals and *synthetic* defects
    made from held-out normals: sigma, timestep and score are chosen there, never on `test`. The place of an
    image in `test` is its image index everywhere (noise is keyed by it). `probe` holds numbers about the
    split itself (see `diffad.data.probe`); `options` reload it: `load_data(**split.options)`.

    Raises `InputError` when a picture (by content hash) or a group lies in two parts.
    """

    name: str
    train: ImageSet
    calibration: ImageSet
    validation: ImageSet
    test: ImageSet
    resolution: int
    channels: int
    probe: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (self.channels, self.resolution, self.resolution)
        for name, part in self.parts().items():
            if not len(part):
                raise InputError(f"{self.name}: no image is left for {name}; give more images")
            if tuple(part.images.shape[1:]) != shape:
                raise InputError(
                    f"{self.name}: {name} holds {tuple(part.images.shape[1:])} images, need {shape}"
                )
        for name in ("train", "calibration"):
            if bool(self.parts()[name].labels.any()):
                raise InputError(f"{self.name}: {name} holds anomalies; only normals may be learnt from")
        _check_apart({n: p.image_hashes() for n, p in self.parts().items()}, self, "the same picture")
        _check_apart({n: p.groups for n, p in self.parts().items()}, self, "the same group")

    def parts(self) -> dict[str, ImageSet]:
        """Return the four parts by name."""
        return {name: getattr(self, name) for name in PARTS}

    def fingerprint(self) -> str:
        """Return the SHA-256 of the four parts (see `ImageSet.fingerprint`)."""
        text = "".join(part.fingerprint() for part in self.parts().values())
        return hashlib.sha256(text.encode()).hexdigest()


def cut(
    groups: Sequence[str | None], sizes: Sequence[int], rng: np.random.Generator
) -> tuple[list[int], ...]:
    """Cut images into a rest and one part for each of `sizes`, whole groups at a time.

    Groups (an image without one is its own) are dealt in random order to the first part that has room for
    them; those that fit nowhere stay in the rest, so no part outgrows its size. Returns sorted indices: the
    rest, then the parts.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(f"alone:{index}" if group is None else f"group:{group}", []).append(index)
    names = list(members)
    rest: list[int] = []
    parts: list[list[int]] = [[] for _ in sizes]
    for position in rng.permutation(len(names)):
        block = members[names[position]]
        room = (part for part, size in zip(parts, sizes, strict=True) if len(part) + len(block) <= size)
        next(room, rest).extend(block)
    return tuple(sorted(part) for part in (rest, *parts))


def drop_shared(parts: Sequence[ImageSet]) -> tuple[list[ImageSet], int, int]:
    """Drop from earlier parts every picture and every group that a later part holds too.

    With parts ordered train, calibration, validation, test, the test part stays as published. Returns the
    parts, the number of images dropped as copies and the number dropped for their group.
    """
    seen: set[str] = set()
    taken: set[str] = set()
    kept: list[ImageSet] = []
    copies = grouped = 0
    for part in reversed(parts):
        hashes = part.image_hashes()
        copied = [digest in seen for digest in hashes]
        shared = [group is not None and group in taken for group in part.groups]
        copies += sum(copied)
        grouped += sum(s and not c for s, c in zip(shared, copied, strict=True))
        keep = [i for i in range(len(part)) if not copied[i] and not shared[i]]
        kept.append(part if len(keep) == len(part) else part.take(keep))
        seen.update(hashes)
        taken.update(group for group in part.groups if group is not None)
    return kept[::-1], copies, grouped


def _check_apart(keys: dict[str, Sequence[str | None]], split: DataSplit, what: str) -> None:
    owner: dict[str, tuple[str, str]] = {}
    for name, values in keys.items():
        for key, identifier in zip(values, split.parts()[name].identifiers, strict=True):
            if key is None:
                continue
            where, other = owner.setdefault(key, (name, identifier))
            if where != name:
                raise InputError(
                    f"{split.name}: {other} in {where} and {identifier} in {name} are {what}; drop one"
                )
