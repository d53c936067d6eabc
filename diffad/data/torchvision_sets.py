"""MNIST, FashionMNIST, CIFAR-10, CIFAR-100 and SVHN through torchvision, downloaded when absent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from platformdirs import user_cache_path
from torch import Tensor

from certify.checks import InputError
from certify.console import say
from diffad.data.defects import SHAPE
from diffad.data.reading import to_tensor
from diffad.data.source import Pool, Source

DIGITS = tuple("0123456789")
# The 20 superclasses of CIFAR-100 in the order of the fine classes (coarse_labels of the published files).
COARSE = [
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
]
FINE_TO_COARSE = (
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
)


@dataclass(frozen=True)
class Published:
    """Where a set comes from, what its files are below the root, and the name of each label."""

    reader: str
    page: str
    files: str
    classes: tuple[str, ...]


FASHION = tuple(
    ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle_boot"]
)
CIFAR10 = tuple(["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"])
CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
SETS = {
    "mnist": Published("MNIST", "http://yann.lecun.com/exdb/mnist/", "MNIST/raw/*-ubyte", DIGITS),
    "fashion_mnist": Published(
        "FashionMNIST",
        "https://github.com/zalandoresearch/fashion-mnist",
        "FashionMNIST/raw/*-ubyte",
        FASHION,
    ),
    "cifar10": Published("CIFAR10", CIFAR_PAGE, "cifar-10-batches-py/", CIFAR10),
    "cifar100": Published(
        "CIFAR100", CIFAR_PAGE, "cifar-100-python/", tuple(COARSE[coarse] for coarse in FINE_TO_COARSE)
    ),
    "svhn": Published("SVHN", "http://ufldl.stanford.edu/housenumbers/", "{train,test}_32x32.mat", DIGITS),
}


def torchvision_set(
    name: str,
    *,
    root: str | Path | None = None,
    download: bool = True,
    resolution: int | None = None,
    channels: int | None = None,
) -> Source:
    """Return a torchvision data set; CIFAR-100 by its 20 superclasses, as one-class papers do.

    `root` is $DIFFAD_DATA, else the platform's cache folder, unless told. A set that is not there is
    downloaded when `download` allows it. Raises `InputError` with the page and the layout when it cannot be
    had.
    """
    folder = Path(root) if root is not None else default_root()
    published = SETS[name]
    pools = []
    for part in ("train", "test"):
        pixels, labels = _arrays(_dataset(name, part, folder, download))
        pools.append(_pool(f"{name}/{part}", pixels, labels, published.classes, resolution, channels))
    return Source(name, pools[0], pools[1], SHAPE)


def default_root() -> Path:
    """Return the folder of downloaded sets: $DIFFAD_DATA, else the platform's cache folder."""
    named = os.environ.get("DIFFAD_DATA")
    return Path(named) if named else user_cache_path("diffad") / "data"


def _dataset(name: str, part: str, folder: Path, download: bool) -> Any:
    published = SETS[name]
    import torchvision.datasets  # takes two seconds: not before one of these sets is wanted

    reader = getattr(torchvision.datasets, published.reader)
    which = {"split": part} if name == "svhn" else {"train": part == "train"}
    try:
        return reader(str(folder), download=False, **which)
    except (RuntimeError, OSError) as absent:
        problem = absent
    if download:
        say(f"{name}: not in {folder}; downloading it")
        try:
            return reader(str(folder), download=True, **which)
        except (RuntimeError, OSError) as failure:
            problem = failure
    reason = str(problem).splitlines()[0]
    raise InputError(
        f"{name}: cannot be read or downloaded ({reason}); get it from {published.page} and put it at "
        f"{folder}/{published.files}"
    )


def _arrays(dataset: Any) -> tuple[np.ndarray, list[int]]:
    """Return uint8 pixels, (n, h, w) or (n, h, w, 3), and labels, whichever way torchvision names them."""
    pixels = np.asarray(dataset.data)
    if pixels.ndim == 4 and pixels.shape[1] == 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    return pixels, [int(label) for label in labels]


def _pool(
    prefix: str,
    pixels: np.ndarray,
    labels: list[int],
    classes: tuple[str, ...],
    resolution: int | None,
    channels: int | None,
) -> Pool:
    def read(place: int) -> tuple[Tensor, None]:
        picture = Image.fromarray(np.ascontiguousarray(pixels[place]))
        return to_tensor(picture, resolution=resolution, channels=channels), None

    names = tuple(f"{prefix}/{place:05d}" for place in range(len(labels)))
    return Pool(names, tuple(classes[label] for label in labels), read)
