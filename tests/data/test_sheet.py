from __future__ import annotations

import torch

from diffad.data import contact_sheet


def test_size_and_places():
    images = torch.zeros(5, 1, 6, 6)
    images[3] = 1.0
    sheet = contact_sheet(images, columns=3, zoom=2)
    assert sheet.size == (3 * 16, 2 * 16)
    assert sheet.getpixel((8, 24)) == (255, 255, 255)
    assert sheet.getpixel((24, 24)) == (0, 0, 0)


def test_masks_are_outlined_in_red():
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, 3:5, 3:5] = True
    sheet = contact_sheet(torch.zeros(1, 3, 8, 8), masks=masks, columns=1)
    red, green, _ = sheet.getpixel((2 + 2, 2 + 3))
    assert red > 200 > green
    assert sheet.getpixel((2 + 3, 2 + 3)) == (0, 0, 0)
