"""All transforms of a few images on one sheet, to look at."""

from __future__ import annotations

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from certify.checks import check_images
from diffad.data.sheet import contact_sheet
from diffad.data.transforms import TRANSFORMS, apply, light_view

LABEL_WIDTH = 100


def transform_sheet(images: Float[Tensor, "n c h w"], *, seed: int = 0, zoom: int = 1) -> Image.Image:
    """Return the images as they are, under every transform and as two light views, one named row each.

    Each image's partner, where one is mixed in, is the next image.
    """
    check_images(images)
    seeds = [seed + number for number in range(len(images))]
    rows = {"as it is": images}
    for name in TRANSFORMS:
        if name == "rotation90" and images.shape[2] != images.shape[3]:
            continue
        rows[name] = apply(name, images, seeds=seeds, partners=images.roll(-1, 0))
    for view in (1, 2):
        rows[f"light view {view}"] = light_view(images, seeds=[view * len(images) + s for s in seeds])
    sheet = contact_sheet(torch.cat(list(rows.values())), columns=len(images), zoom=zoom)
    page = Image.new("RGB", (LABEL_WIDTH + sheet.width, sheet.height), "white")
    page.paste(sheet, (LABEL_WIDTH, 0))
    draw, height = ImageDraw.Draw(page), sheet.height // len(rows)
    for number, name in enumerate(rows):
        draw.text((4, number * height + height // 2), name, fill="black", anchor="lm")
    return page
