"""Images by class that are not read yet, so that a protocol reads only the ones it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from certify.console import progress
from diffad.data.defects import DefectStyle
from diffad.data.records import GOOD, Record

T = TypeVar("T")
READERS = 8  # decoding leaves Python's lock, so a few threads hide the latency of a disk


@dataclass(frozen=True, eq=False)
class Pool:
    """One side (train or test) of a data set.

    `read(place)` returns the image, float32 (channel, height, width) in [0, 1], and its mask, bool (height,
    width), or None; `thumbnail(place)` the same image in grey at one fixed size, whatever resolution is asked
    for. Both may be called from several threads.
    """

    identifiers: tuple[str, ...]
    classes: tuple[str, ...]
    read: Callable[[int], tuple[Tensor, Tensor | None]]
    groups: tuple[str | None, ...] | None = None
    thumbnail: Callable[[int], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.identifiers)

    def of_classes(self, names: Collection[str]) -> Pool:
        """Return the images of these classes alone, in order."""
        places = [place for place, name in enumerate(self.classes) if name in names]
        read, thumbnail, groups = self.read, self.thumbnail, self.groups
        return Pool(
            tuple(self.identifiers[place] for place in places),
            tuple(self.classes[place] for place in places),
            lambda place: read(places[place]),
            None if groups is None else tuple(groups[place] for place in places),
            None if thumbnail is None else lambda place: thumbnail(places[place]),
        )

    def drawn_by(self, draw: Callable[[Tensor], Tensor]) -> Pool:
        """Return the same images after `draw`, images to images (n, c, h, w), clipped to [0, 1]; masks stay."""
        read = self.read

        def drawn(place: int) -> tuple[Tensor, Tensor | None]:
            image, mask = read(place)
            return draw(image[None])[0].clamp(0.0, 1.0), mask

        return replace(self, read=drawn)

    def renamed(self, prefix: str) -> Pool:
        """Return the same images with `prefix` before their identifiers, which may occur in another set too."""
        return replace(self, identifiers=tuple(prefix + name for name in self.identifiers))

    def records(self, places: Sequence[int], *, anomalous: bool, prefix: str = "") -> list[Record]:
        """Read the images at `places`; an anomaly's defect kind is its class, with `prefix` before it."""
        pictures = _threaded(self.read, places, "reading images")
        return [
            Record(
                image,
                int(anomalous),
                self.identifiers[place],
                prefix + self.classes[place] if anomalous else GOOD,
                None if self.groups is None else self.groups[place],
                mask if mask is not None or anomalous else torch.zeros(image.shape[1:], dtype=torch.bool),
                category=self.classes[place],
            )
            for place, (image, mask) in zip(places, pictures, strict=True)
        ]

    def thumbnails(self, places: Sequence[int]) -> list[Tensor] | None:
        """Read the thumbnails at `places`; None where the images themselves serve."""
        return None if self.thumbnail is None else _threaded(self.thumbnail, places, "comparing images")


@dataclass(frozen=True, eq=False)
class Source:
    """A data set by class, before a protocol says what is normal.

    `style` says what synthetic defects suit it, `held_out` the share of train normals that calibration and
    validation take each, `balanced` whether the test takes as many anomalies as normals when no limit is
    given, `group_above` the correlation above which train images count as near-duplicates and stay together,
    `native` (images to images) what makes a synthetic defect look like every image of this set, where the set
    has been enlarged: without it a defect betrays itself by detail that no real image can have.
    """

    name: str
    train: Pool
    test: Pool
    style: DefectStyle
    held_out: float = 0.1
    balanced: bool = False
    group_above: float | None = None
    native: Callable[[Tensor], Tensor] | None = None

    def of_classes(self, names: Collection[str]) -> Source:
        """Return the same set with the images of these classes alone."""
        return replace(self, train=self.train.of_classes(names), test=self.test.of_classes(names))


def _threaded(read: Callable[[int], T], places: Sequence[int], label: str) -> list[T]:
    with ThreadPoolExecutor(READERS) as readers:
        try:
            return list(progress(readers.map(read, places), label, len(places)))
        except BaseException:  # a damaged file, or Ctrl-C: do not read the rest first
            readers.shutdown(cancel_futures=True)
            raise
