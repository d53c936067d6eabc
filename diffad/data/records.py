"""One record type for every source: an image, its label and what is known about its defect.

>>> import torch
>>> from diffad.data.records import ImageSet, Record
>>> records = [Record(torch.zeros(1, 4, 4), 0, "a"), Record(torch.ones(1, 4, 4), 1, "b", "scratch")]
>>> images = ImageSet.from_records(records)
>>> len(images), images.anomalies().defects
(2, ('scratch',))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from certify.checks import InputError, check_images

GOOD = "good"


@dataclass(frozen=True, eq=False)
class Record:
    """One image and what is known about it.

    `image` is float32 (channel, height, width) in [0, 1]; `label` 0 normal, 1 anomalous; `identifier` names
    the image within its data set; `defect` is "good" for normals, else the kind (for class data sets: the
    class); images of one `group` (one object, one recording session) never lie on two sides of a split;
    `mask` is True on defective pixels; `defect_l2` is the L2 norm of defective minus clean image where the
    clean one is known; `category` is the class of the image in its data set, where that has classes.
    """

    image: Float32[Tensor, "c h w"]
    label: int
    identifier: str
    defect: str = GOOD
    group: str | None = None
    mask: Bool[Tensor, "h w"] | None = None
    defect_l2: float | None = None
    category: str | None = None


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size, in a fixed order, with one entry an image in every other field (see `Record`).

    `masks` is None where the masks of some anomalies are unknown; normals have an empty mask. `defect_l2` is
    None where no clean twin is known; normals have 0, unknown sizes are NaN. `categories` is None where the class
    of some image is unknown; it plays no part in the fingerprint.
    """

    images: Float32[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    identifiers: tuple[str, ...]
    defects: tuple[str, ...]
    groups: tuple[str | None, ...]
    masks: Bool[Tensor, "n h w"] | None = None
    defect_l2: Float64[Tensor, " n"] | None = None
    categories: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self):
            check_images(self.images)
        for name in ("labels", "identifiers", "defects", "groups", "masks", "defect_l2", "categories"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self):
                raise InputError(f"ImageSet: got {len(value)} {name} for {len(self)} images")
        for label, defect, identifier in zip(
            self.labels.tolist(), self.defects, self.identifiers, strict=True
        ):
            if label not in (0, 1) or (label == 0) != (defect == GOOD):
                raise InputError(
                    f"ImageSet: {identifier} has label {label} and defect {defect!r}; "
                    f"0 goes with {GOOD!r}, 1 with the name of a defect"
                )
        if len(set(self.identifiers)) != len(self):
            twice = next(i for i in self.identifiers if self.identifiers.count(i) > 1)
            raise InputError(f"ImageSet: identifier {twice!r} stands for two images")

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __getitem__(self, index: int) -> Record:
        size = None if self.defect_l2 is None else float(self.defect_l2[index])
        return Record(
            self.images[index],
            int(self.labels[index]),
            self.identifiers[index],
            self.defects[index],
            self.groups[index],
            None if self.masks is None else self.masks[index],
            None if size is None or np.isnan(size) else size,
            None if self.categories is None else self.categories[index],
        )

    def take(self, indices: Sequence[int] | Int64[Tensor, " k"]) -> ImageSet:
        """Return the images at `indices`, in that order."""
        index = torch.as_tensor(indices, dtype=torch.int64)
        order = index.tolist()
        return ImageSet(
            self.images[index],
            self.labels[index],
            tuple(self.identifiers[i] for i in order),
            tuple(self.defects[i] for i in order),
            tuple(self.groups[i] for i in order),
            None if self.masks is None else self.masks[index],
            None if self.defect_l2 is None else self.defect_l2[index],
            None if self.categories is None else tuple(self.categories[i] for i in order),
        )

    def normals(self) -> ImageSet:
        """Return the normal images, in order."""
        return self.take((self.labels == 0).nonzero().flatten())

    def anomalies(self) -> ImageSet:
        """Return the anomalous images, in order."""
        return self.take((self.labels == 1).nonzero().flatten())

    def image_hashes(self) -> tuple[str, ...]:
        """Return the SHA-256 of each image's pixels in 16 bits: equal for equal pictures, on any machine."""
        return tuple(
            hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
            for pixels in map(_sixteen_bit, self.images)
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of all there is: pixels in 16 bits, labels, names, groups, masks, sizes.

        Eight- and sixteen-bit sources lie at the centre of a 16-bit step, so rounding errors of a platform's
        arithmetic do not change it.
        """
        digest = hashlib.sha256("".join(self.image_hashes()).encode())
        sizes = None if self.defect_l2 is None else [f"{size:.3f}" for size in self.defect_l2.tolist()]
        table = [self.labels.tolist(), self.identifiers, self.defects, self.groups, sizes]
        digest.update(json.dumps(table).encode())
        if self.masks is not None:
            digest.update(np.packbits(self.masks.numpy()).tobytes())
        return digest.hexdigest()

    @classmethod
    def from_records(cls, records: Sequence[Record]) -> ImageSet:
        """Stack records of one image size; refuse by name the first that has another."""
        if not records:
            raise InputError("ImageSet: got no image; need at least one")
        shape = records[0].image.shape
        for record in records:
            if record.image.shape != shape:
                raise InputError(
                    f"{record.identifier}: size {_size(record.image)} differs from {_size(records[0].image)} "
                    f"of {records[0].identifier}; give a resolution (and channels) to make them one size"
                )
        anomalies = [record for record in records if record.label == 1]
        masks = None
        if anomalies and all(record.mask is not None for record in anomalies):
            blank = torch.zeros(shape[1:], dtype=torch.bool)
            masks = torch.stack([blank if record.mask is None else record.mask for record in records])
        sizes = None
        if any(record.defect_l2 is not None for record in anomalies):
            sizes = torch.tensor([_size_or_nan(record) for record in records], dtype=torch.float64)
        categories = tuple(record.category for record in records if record.category is not None)
        return cls(
            torch.stack([record.image for record in records]),
            torch.tensor([record.label for record in records], dtype=torch.int64),
            tuple(record.identifier for record in records),
            tuple(record.defect for record in records),
            tuple(record.group for record in records),
            masks,
            sizes,
            categories if len(categories) == len(records) else None,
        )

    @classmethod
    def concat(cls, sets: Sequence[ImageSet]) -> ImageSet:
        """Put sets of one image size one after the other; masks stay where every anomaly has one."""
        return cls.from_records([images[i] for images in sets for i in range(len(images))])


def quantise(image: np.ndarray, levels: int) -> np.ndarray:
    """Round an image in [0, 1] to multiples of 1 / levels (255: what an 8-bit file can hold)."""
    return np.round(image * levels) / levels


def _sixteen_bit(image: Float32[Tensor, "c h w"]) -> np.ndarray:
    return quantise_codes(image.double().numpy(), 65535)


def quantise_codes(image: np.ndarray, levels: int) -> np.ndarray:
    """Return the integer codes of an image in [0, 1], little-endian 16 bit."""
    return np.round(image * levels).astype("<u2")


def _size(image: Tensor) -> str:
    return "x".join(str(side) for side in image.shape)


def _size_or_nan(record: Record) -> float:
    if record.label == 0:
        return 0.0
    return float("nan") if record.defect_l2 is None else record.defect_l2
