"""Small data sets on disk and in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffad.data.records import ImageSet, Record


@pytest.fixture
def write() -> Callable[..., Path]:
    """Write a random (or given) uint8 picture to a path and return the path."""

    def write(
        path: Path, size: tuple[int, ...] = (12, 12), seed: int = 0, pixels: np.ndarray | None = None
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def mvtec_folder(tmp_path: Path, write: Callable[..., Path]) -> Path:
    """44 train normals, 5 test normals, 4 scratches and 3 holes with masks, 20 x 24 grey."""
    root = tmp_path / "tiles"
    for i in range(44):
        write(root / f"train/good/{i:03d}.png", (20, 24), seed=i)
    for i in range(5):
        write(root / f"test/good/{i:03d}.png", (20, 24), seed=100 + i)
    for defect, count in (("scratch", 4), ("hole", 3)):
        for i in range(count):
            write(root / f"test/{defect}/{i:03d}.png", (20, 24), seed=200 + 10 * count + i)
            mask = np.zeros((20, 24), dtype=np.uint8)
            mask[2:12, 3:15] = 255
            write(root / f"ground_truth/{defect}/{i:03d}_mask.png", pixels=mask)
    return root


@pytest.fixture
def class_folder(tmp_path: Path, write: Callable[..., Path]) -> Path:
    """Classes cat (44 train, 6 test), dog (42, 5) and owl (40, 4), 12 x 12 grey."""
    root = tmp_path / "pets"
    for c, name in enumerate(("cat", "dog", "owl")):
        for i in range(44 - 2 * c):
            write(root / f"train/{name}/{i:03d}.png", seed=1000 * c + i)
        for i in range(6 - c):
            write(root / f"test/{name}/{i:03d}.png", seed=1000 * c + 500 + i)
    return root


@pytest.fixture
def image_set() -> Callable[..., ImageSet]:
    """Random images with named identifiers, all normal unless `defects` are given."""

    def image_set(
        count: int, prefix: str, *, defects: tuple[str, ...] = (), group: str | None = None
    ) -> ImageSet:
        seed = torch.Generator().manual_seed(sum(map(ord, prefix)))
        kinds = defects or ("good",) * count
        return ImageSet.from_records(
            [
                Record(torch.rand(1, 8, 8, generator=seed), int(kind != "good"), f"{prefix}{i}", kind, group)
                for i, kind in enumerate(kinds)
            ]
        )

    return image_set
