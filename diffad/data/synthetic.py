"""Anomalies for the validation part, planted in held-out normals."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.data.defects import DefectStyle, plant
from diffad.data.records import ImageSet, Record

LEAST = 60  # few held-out normals are used several times, so that the choice does not rest on a handful


def image_rng(seed: int, purpose: int, identifier: str, repeat: int = 0) -> np.random.Generator:
    """Return the generator of one image: it depends on its identifier, never on its place in a batch."""
    key = int.from_bytes(hashlib.sha256(identifier.encode()).digest()[:8], "little")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, key, repeat)))


def with_synthetic_defects(
    normals: ImageSet,
    style: DefectStyle,
    *,
    seed: int = 0,
    least: int = LEAST,
    native: Callable[[Tensor], Tensor] | None = None,
) -> ImageSet:
    """Return `normals` followed by defective copies of them, at least one each and `least` in all.

    Kinds take turns; patches are pasted from another image of `normals`. Copies carry the group of their
    original. `native` maps images (n, c, h, w) to what the set can hold (see `Source`), and is applied last.
    """
    if len(normals) < 2:
        raise InputError(f"synthetic defects: got {len(normals)} held-out normals, need at least 2")
    repeats = max(1, -(-least // len(normals)))
    order = sorted(range(len(normals)), key=lambda i: normals.identifiers[i])  # not the order of the files
    planted: list[Record] = []
    for turn, index in enumerate(i for _ in range(repeats) for i in order):
        planted.append(_defective(normals, index, order, turn, turn // len(order), style, seed))
    if native is not None:
        planted = [_as_native(record, native) for record in planted]
    return ImageSet.concat([normals, ImageSet.from_records(planted)])


def _as_native(record: Record, native: Callable[[Tensor], Tensor]) -> Record:
    """Return the record with its image made native; the exact size of the defect is no longer known."""
    return replace(record, image=native(record.image[None])[0].clamp(0.0, 1.0), defect_l2=None)


def _defective(
    normals: ImageSet, index: int, order: Sequence[int], turn: int, repeat: int, style: DefectStyle, seed: int
) -> Record:
    rng = image_rng(seed, 0, normals.identifiers[index], repeat)
    others = [i for i in order if i != index]
    donor = others[int(rng.integers(len(others)))]
    image, mask, kind, size = plant(
        normals.images[index].double().numpy(),
        normals.images[donor].double().numpy(),
        rng,
        style,
        turn + repeat,
    )
    name = f"{normals.identifiers[index]}+{kind}{repeat}"
    return Record(
        torch.from_numpy(image).float(), 1, name, kind, normals.groups[index], torch.from_numpy(mask), size
    )
