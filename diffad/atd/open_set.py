"""Open sets: images that are not of the in-distribution, to train against or to choose a checkpoint on.

A source is `textures:FAMILY` (procedural, nothing is downloaded), `transforms:NAME` (the given normals under one hard
transform), or any data set with a training part: cifar10, folder:PATH, ... All are made at the resolution and with the
channels of the in-distribution, files by the one resampler of `diffad.data.reading`. Where the in-distribution has been
enlarged from a smaller size, as the digits have, so is the open set: detail that no normal can have would give it away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from certify.checks import InputError, check_choice
from diffad.data import DataSplit
from diffad.data.load import SOURCES, Request
from diffad.data.records import ImageSet, Record
from diffad.data.texture_split import TextureCounts, texture_split
from diffad.data.textures import FAMILIES
from diffad.data.transforms import HARD_TRANSFORMS, apply
from diffad.leakage import same_source, seen_sources

TEXTURES, TRANSFORMS = "textures", "transforms"
TRAINED = (
    "textures:grid",
    "textures:stripes",
    "textures:weave",
    "transforms:jigsaw",
    "transforms:cutmix",
    "transforms:crop_extreme",
)
CHOOSING = ("textures:checker", "transforms:elastic", "transforms:cutout")  # of other kinds than TRAINED


@dataclass(frozen=True)
class OpenSources:
    """Sources in equal shares, and what keys their draws.

    Attributes:
        specs: the sources.
        seed: draws images and transforms.
        purpose: number of the stream, so that two open sets of one seed differ.
    """

    specs: tuple[str, ...]
    seed: int
    purpose: int

    def __post_init__(self) -> None:
        """Refuse sources that do not exist."""
        if not self.specs or len(set(self.specs)) < len(self.specs):
            raise InputError(f"open data: got {list(self.specs)}; need at least one source, each once")
        for spec in self.specs:
            kind, _, name = spec.partition(":")
            check_choice(kind, (TEXTURES, TRANSFORMS, *SOURCES), "open data")
            if kind == TEXTURES:
                check_choice(name, tuple(FAMILIES), f"open data: {TEXTURES}")
            elif kind == TRANSFORMS:
                check_choice(name, tuple(HARD_TRANSFORMS), f"open data: {TRANSFORMS}")

    def images(
        self,
        normals: Float32[Tensor, "n c h w"],
        count: int,
        native: Callable[[Tensor], Tensor] | None = None,
    ) -> Float32[Tensor, "m c h w"]:
        """Return about `count` images, in equal shares of the sources.

        A data set may hold fewer than its share, and a normal that its transform leaves as it is, is left out.

        Args:
            normals: in-distribution images that the transforms change, and that give resolution and channels.
            count: images in all, at least one of each source.
            native: `Source.native` of the in-distribution, what makes an image look like all of its set.
        """
        share = -(-count // len(self.specs))
        found = torch.cat([self._of(spec, place, normals, share) for place, spec in enumerate(self.specs)])
        if not len(found):
            raise InputError(
                f"open data: {', '.join(self.specs)} leave every normal as it is; choose other sources"
            )
        return found if native is None else native(found).clamp(0.0, 1.0)

    def _of(self, spec: str, place: int, normals: Tensor, count: int) -> Tensor:
        kind, _, name = spec.partition(":")
        rng = np.random.default_rng((self.seed, self.purpose, place))
        if kind == TRANSFORMS:
            rows, partners = (torch.from_numpy(rng.integers(0, len(normals), count)) for _ in range(2))
            seeds = torch.from_numpy(rng.integers(0, 2**62, count))
            made = apply(name, normals[rows], seeds=seeds, partners=normals[partners])
            return made[(made != normals[rows]).flatten(1).any(1)]
        channels, side = normals.shape[1], normals.shape[3]
        if kind == TEXTURES:
            drawn = TextureCounts(train=count, calibration=1, validation=1, test=1)
            seed = int(rng.integers(0, 2**31))
            return texture_split(
                name, resolution=side, channels=channels, seed=seed, counts=drawn
            ).train.images
        pool = SOURCES[kind](Request(spec, resolution=side, channels=channels, seed=self.seed)).train
        chosen = sorted(rng.permutation(len(pool))[:count].tolist())
        return ImageSet.from_records(pool.records(chosen, anomalous=True)).images


def check_untested(specs: Sequence[str], outliers: Sequence[str], data: str) -> None:
    """Refuse sources of an open set that are outlier sets of the test, or the in-distribution itself.

    `textures` among the outlier sets stands for every family.
    """
    normal = f"{TEXTURES}:grid" if data == TEXTURES else data  # the family of textures without a name
    same = [spec for spec in specs if same_source(spec, normal)]
    if same:
        raise InputError(
            f"open data: {', '.join(same)} is the in-distribution; choose other open_data and validation_open_data"
        )
    if seen := seen_sources(specs, outliers):
        raise InputError(
            f"open data: {', '.join(seen)} is tested on ({', '.join(outliers)}); choose other open_data and "
            "validation_open_data"
        )


def native_of(request: Request) -> Callable[[Tensor], Tensor] | None:
    """Return what makes an image look like all of a data set that has been enlarged; None for others."""
    return SOURCES[request.kind](request).native if request.kind in SOURCES else None


def check_apart(split: DataSplit, trained: Tensor, choosing: Tensor) -> None:
    """Refuse open sets that share a picture with each other, with the test or with the in-distribution.

    Args:
        split: the in-distribution data with their test.
        trained: open-set images (m, c, h, w) to train against.
        choosing: open-set images (k, c, h, w) to choose a checkpoint on.
    """
    hashes = {"open_data": _hashes(trained), "validation_open_data": _hashes(choosing)}
    both = hashes["open_data"] & hashes["validation_open_data"]
    if both:
        raise InputError(
            f"validation_open_data: {len(both)} of its images are in open_data too; choose another kind"
        )
    test = set(split.test.image_hashes())
    normal = {
        digest
        for part in (split.train, split.calibration, split.validation)
        for digest in part.image_hashes()
    }
    for name, found in hashes.items():
        for others, what in ((test, "test images"), (normal, "in-distribution images")):
            if found & others:
                raise InputError(
                    f"{name}: {len(found & others)} of its images are {what} of {split.name}; choose another source"
                )


def _hashes(images: Tensor) -> set[str]:
    unlabelled = [Record(image, 1, str(place), "open") for place, image in enumerate(images)]
    return set(ImageSet.from_records(unlabelled).image_hashes())
