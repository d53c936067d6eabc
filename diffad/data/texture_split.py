"""The `textures` data set: procedural normals, planted defects, and everything keyed by seed and place."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from certify.checks import InputError, check_choice
from diffad.data.defects import SURFACE, SURFACE_TEST, DefectStyle, plant
from diffad.data.probe import probe
from diffad.data.records import GOOD, ImageSet, Record, quantise
from diffad.data.source import Pool, Source
from diffad.data.split import DataSplit
from diffad.data.textures import FAMILIES, REFERENCE_SIZE, render

# What an image is for; each has its own stream of seeds. Never renumber: the data would change.
STREAMS = {
    "train": 0,
    "calibration": 1,
    "validation": 2,
    "validation-defects": 3,
    "test": 4,
    "test-defects": 5,
}


@dataclass(frozen=True)
class TextureCounts:
    """Images in each part; validation and test hold as many defective ones again."""

    train: int = 2000
    calibration: int = 200
    validation: int = 200
    test: int = 200


def texture_split(
    family: str = "grid",
    *,
    resolution: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    counts: TextureCounts | None = None,
    options: dict[str, Any] | None = None,
) -> DataSplit:
    """Generate a texture data set (32 x 32 grey unless told): a few seconds for the default 3000 images.

    Defects of the test are blobs, scratches, stains and pasted patches of L2 size .9 to 3.3 with median 2 (on
    32 x 32 grey; see `DefectStyle.norms`), one size an image in `test.defect_l2`. They are planted in
    textures of their own. `limit` shortens both sides of the test and changes no image of it.
    """
    check_choice(family, tuple(FAMILIES), "texture family")
    counts = counts or TextureCounts()
    side, depth = resolution or REFERENCE_SIZE, channels or 1
    if side < 16:
        raise InputError(f"textures: got resolution {side}, need at least 16")
    shown = counts.test if limit is None else min(limit, counts.test)

    def normals(stream: str, count: int) -> ImageSet:
        return ImageSet.from_records([_normal(family, seed, stream, i, side, depth) for i in range(count)])

    def defective(stream: str, count: int, style: DefectStyle) -> ImageSet:
        return ImageSet.from_records(
            [_defective(family, seed, stream, i, side, depth, style) for i in range(count)]
        )

    train, calibration = normals("train", counts.train), normals("calibration", counts.calibration)
    validation = ImageSet.concat(
        [
            normals("validation", counts.validation),
            defective("validation-defects", counts.validation, SURFACE),
        ]
    )
    test = ImageSet.concat([normals("test", shown), defective("test-defects", shown, SURFACE_TEST)])
    facts = {**probe(train, test), "dropped_copies": 0, "dropped_for_group": 0, "groups": 0}
    return DataSplit(
        f"textures:{family}", train, calibration, validation, test, side, depth, facts, options or {}
    )


def texture_source(
    family: str = "",
    *,
    resolution: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    counts: TextureCounts | None = None,
) -> Source:
    """Return textures without defects by class: one family, or all of them for "", each with `counts` images.

    They are drawn at the size asked for, from the same streams as `texture_split`: nothing is resampled.
    """
    families = tuple(FAMILIES) if not family else (check_choice(family, tuple(FAMILIES), "texture family"),)
    counts = counts or TextureCounts()
    side, depth = resolution or REFERENCE_SIZE, channels or 1

    def pool(stream: str, count: int) -> Pool:
        def read(place: int) -> tuple[torch.Tensor, None]:
            return _normal(families[place // count], seed, stream, place % count, side, depth).image, None

        names = tuple(f"{name}/{stream}/{i:04d}" for name in families for i in range(count))
        return Pool(names, tuple(name for name in families for _ in range(count)), read)

    name = f"textures:{family}" if family else "textures"
    return Source(name, pool("train", counts.train), pool("test", counts.test), SURFACE)


def texture_rng(family: str, seed: int, stream: str, place: int) -> np.random.Generator:
    """Return the generator of one image, the same whatever else is generated."""
    key = (zlib.crc32(family.encode()), STREAMS[stream], place)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _normal(family: str, seed: int, stream: str, place: int, side: int, depth: int) -> Record:
    grey = quantise(render(family, texture_rng(family, seed, stream, place), side), 255)
    return Record(_tensor(grey[None], depth), 0, f"{family}/{stream}/{place:04d}", GOOD)


def _defective(
    family: str, seed: int, stream: str, place: int, side: int, depth: int, style: DefectStyle
) -> Record:
    rng = texture_rng(family, seed, stream, place)
    clean, donor = (quantise(render(family, rng, side), 255)[None] for _ in range(2))
    image, mask, kind, size = plant(clean, donor, rng, style, place, levels=255)
    size *= float(np.sqrt(depth))
    name = f"{family}/{stream}/{place:04d}"
    return Record(_tensor(image, depth), 1, name, kind, None, torch.from_numpy(mask), size)


def _tensor(grey: np.ndarray, depth: int) -> torch.Tensor:
    return torch.from_numpy(grey).float().expand(depth, -1, -1).contiguous()
