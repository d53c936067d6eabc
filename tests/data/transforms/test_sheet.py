from __future__ import annotations

import numpy as np
import torch

from diffad.data.transforms import TRANSFORMS
from diffad.data.transforms.sheet import LABEL_WIDTH, transform_sheet


def test_one_named_row_for_each_transform():
    images = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    sheet = transform_sheet(images, zoom=2)
    rows = 1 + len(TRANSFORMS) + 2
    assert sheet.size == (LABEL_WIDTH + 3 * 28, rows * 28)
    pixels = np.asarray(sheet)
    assert all((pixels[28 * row : 28 * row + 28, :LABEL_WIDTH] < 128).any() for row in range(rows))
    first = torch.from_numpy(pixels[2:26:2, LABEL_WIDTH + 2 : LABEL_WIDTH + 26 : 2, 0].copy())
    assert torch.equal(first, (images[0, 0] * 255).round().byte())


def test_images_that_are_not_square_have_no_quarter_turns():
    sheet = transform_sheet(torch.rand(2, 3, 10, 12))
    assert sheet.height == (len(TRANSFORMS) + 2) * 14
