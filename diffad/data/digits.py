"""The real handwritten digits that come with scikit-learn: 1797 images of 8 x 8 pixels in 17 grey levels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from diffad.data.defects import SHAPE
from diffad.data.source import Pool, Source

TEST_SHARE = 0.25
LEAST_TEST = 40


def digits(*, resolution: int | None = None, channels: int | None = None, seed: int = 0) -> Source:
    """Return the digits, bilinearly enlarged from 8 x 8 to `resolution` (16 unless told), as one source.

    Values are divided by 16. Enlarging is `torch.nn.functional.interpolate(mode="bilinear",
    align_corners=False)`: at 16 x 16 its weights are quarters and sixteenths, so the pixels are exact on
    every machine. The set has no published split into the classes used here: a quarter of each class (at
    least 40) is held out for the test, drawn by `seed`.
    """
    raw = load_digits()
    pixels = torch.from_numpy(raw.images).float()[:, None] / 16.0
    side = resolution or 16

    def resize(to: int, small: Tensor) -> Tensor:
        return F.interpolate(small, size=(to, to), mode="bilinear", align_corners=False, antialias=to < 8)

    # Rows of an enlarged image lie in the span of 8 columns, and so do its columns: project onto both.
    columns = resize(side, torch.eye(8).view(8, 1, 8, 1).expand(-1, -1, -1, 8))[:, 0, :, 0].T.double()
    span = columns @ torch.linalg.pinv(columns)

    def native(enlarged: Tensor) -> Tensor:
        """Return the nearest image that is an enlarged 8 x 8 one."""
        nearest: Tensor = span @ enlarged.double() @ span
        return nearest.float()

    images = resize(side, pixels)
    images = images.expand(-1, channels or 1, -1, -1).contiguous()
    classes = [str(label) for label in raw.target]
    train: list[int] = []
    test: list[int] = []
    for label in range(10):
        members = np.flatnonzero(raw.target == label)
        order = np.random.default_rng((seed, label)).permutation(members).tolist()
        held_out = max(LEAST_TEST, round(TEST_SHARE * len(order)))
        test += order[:held_out]
        train += order[held_out:]

    def pool(indices: list[int]) -> Pool:
        return Pool(
            tuple(f"digits/{classes[i]}/{i:04d}" for i in indices),
            tuple(classes[i] for i in indices),
            lambda place: (images[indices[place]], None),
        )

    # 10 % of a whole class each, which is 13.3 % of what the test leaves
    return Source(
        "digits",
        pool(sorted(train)),
        pool(sorted(test)),
        SHAPE,
        held_out=0.1 / 0.75,
        balanced=True,
        native=native,
    )
