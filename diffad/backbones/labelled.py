"""Labelled images to train a classifier on: train, held-out and test parts of any data set with classes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from certify.checks import InputError, check_choice
from diffad.data.load import SOURCES, Request
from diffad.data.source import Pool

HELD_OUT = 0.05


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images in [0, 1] of one size with class numbers."""

    images: Float32[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Labelled:
        """Return the first `count`; the parts are in random order, so these are a random sample."""
        return Labelled(self.images[:count], self.labels[:count])


@dataclass(frozen=True, eq=False)
class LabelledSplit:
    """What is learnt from, what is watched while learning, and what is reported in the end.

    `classes` names the class numbers. `held_out` is cut from the published training part, so `test` decides nothing.
    """

    name: str
    classes: tuple[str, ...]
    train: Labelled
    held_out: Labelled
    test: Labelled
    options: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, Any] = field(default_factory=dict)

    @property
    def resolution(self) -> int:
        """Height = width in pixels."""
        return int(self.train.images.shape[-1])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return int(self.train.images.shape[1])

    def fingerprint(self) -> str:
        """Return a SHA-256 (hex) over the class names, pixels and labels of the three parts."""
        digest = hashlib.sha256("\n".join(self.classes).encode())
        for part in (self.train, self.held_out, self.test):
            digest.update(str(tuple(part.images.shape)).encode())
            digest.update(part.images.numpy().data)
            digest.update(part.labels.numpy().data)
        return digest.hexdigest()


def load_labelled(
    spec: str,
    *,
    exclude: Sequence[str] = (),
    resolution: int | None = None,
    channels: int | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> LabelledSplit:
    """Load a data set with its class labels.

    Args:
        spec: as for `diffad.data.load_data`, for example "cifar10", "digits" or "folder:PATH".
        exclude: classes left out everywhere, so that they stay unseen for what is done with the backbone.
        resolution: side in pixels of the square the images are resized to; default: as they are.
        channels: 1 or 3; default as the files are.
        limit: training and test images at most.
        seed: draws the held-out part (5 % of the training part) and the order of every part.

    Raises `InputError`, in one line, for data without classes, unknown classes to exclude, images of several sizes.
    """
    request = Request(spec, resolution=resolution, channels=channels, seed=seed)
    check_choice(request.kind, tuple(SOURCES), "data set with classes")
    source = SOURCES[request.kind](request)
    known = sorted(set(source.train.classes))
    for name in exclude:
        check_choice(name, known, "exclude_classes")
    classes = tuple(name for name in known if name not in exclude)
    if len(classes) < 2:
        raise InputError(f"{spec}: {len(classes)} classes to tell apart, need at least 2")
    train, test = (
        _read(pool, classes, limit, np.random.default_rng((seed, part)))
        for part, pool in enumerate((source.train, source.test))
    )
    held_out = max(round(HELD_OUT * len(train)), 1)
    return LabelledSplit(
        source.name,
        classes,
        Labelled(train.images[held_out:], train.labels[held_out:]),
        train.first(held_out),
        test,
        options={
            "spec": spec,
            "exclude": list(exclude),
            "resolution": resolution,
            "channels": channels,
            "limit": limit,
            "seed": seed,
        },
    )


def _read(
    pool: Pool, classes: tuple[str, ...], limit: int | None, generator: np.random.Generator
) -> Labelled:
    """Read the images of these classes in random order."""
    places = [place for place, name in enumerate(pool.classes) if name in classes]
    order = [places[i] for i in generator.permutation(len(places))[:limit]]
    if len(order) < 2:
        raise InputError(f"data: {len(order)} images of the classes {', '.join(classes)}, need at least 2")
    images = [record.image for record in pool.records(order, anomalous=False)]
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(
            f"data: images of sizes {sorted(shapes)[:3]}; choose one --resolution and --in_channels"
        )
    labels = torch.tensor([classes.index(pool.classes[place]) for place in order])
    return Labelled(torch.stack(images), labels)
