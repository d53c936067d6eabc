"""Image folders: train/<class>/ and test/<class>/, any number of classes."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from certify.checks import InputError
from diffad.data.defects import SHAPE
from diffad.data.grouping import known_groups
from diffad.data.probe import PROBE_SIDE
from diffad.data.reading import list_images, read_image, read_mask
from diffad.data.source import Pool, Source

LAYOUT = "train/<class>/*.png and test/<class>/*.png"


def folder(path: str, *, resolution: int | None = None, channels: int | None = None) -> Source:
    """Return the data set in folder `path`; files are listed now and read when a protocol needs them.

    Without `resolution` the images must be square and of one size. An optional `groups.json` (see
    `diffad.data.grouping`) names images that must stay together.
    """
    root = data_folder(path, LAYOUT)
    train, test = class_folders(root / "train", LAYOUT), class_folders(root / "test", LAYOUT)
    return Source(
        f"folder:{root.resolve().name}",
        *file_pools(root, (train, test), resolution=resolution, channels=channels),
        SHAPE,
    )


def file_pools(
    root: Path,
    parts: tuple[dict[Path, str], dict[Path, str]],
    *,
    resolution: int | None,
    channels: int | None,
    masks: dict[Path, Path] | None = None,
) -> tuple[Pool, Pool]:
    """Return the train and test pools of files with their classes, below `root` and grouped by its groups.json."""
    names = {file: file.relative_to(root).as_posix() for part in parts for file in part}
    groups = known_groups(root, list(names.values()))
    masks = masks or {}

    def pool(files: dict[Path, str]) -> Pool:
        paths = list(files)

        def read(place: int) -> tuple[Tensor, Tensor | None]:
            file = paths[place]
            mask = read_mask(masks[file], file, resolution=resolution) if file in masks else None
            return read_image(file, resolution=resolution, channels=channels), mask

        def thumbnail(place: int) -> Tensor:
            return read_image(paths[place], resolution=PROBE_SIDE, channels=1)

        identifiers = tuple(names[file] for file in paths)
        known = tuple(groups.get(name) for name in identifiers)
        return Pool(identifiers, tuple(files.values()), read, known, thumbnail)

    return pool(parts[0]), pool(parts[1])


def data_folder(path: str, layout: str) -> Path:
    """Return the folder a spec names, or say what it should hold."""
    root = Path(path).expanduser()
    if not path:
        raise InputError(f"data: the folder is missing; write its path after the colon, with {layout} in it")
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; need one that holds {layout}")
    return root


def class_folders(side: Path, layout: str) -> dict[Path, str]:
    """Return every image file below `side` with the name of its class folder, in order."""
    if not side.is_dir():
        raise InputError(f"{side}: no such folder; need {layout}")
    names = sorted(
        entry.name for entry in side.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise InputError(f"{side}: holds no class folder; need {layout}")
    return {file: name for name in names for file in list_images(side / name)}
