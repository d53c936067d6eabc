"""Many images on one sheet, to look at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from certify.checks import check_images


def contact_sheet(
    images: Float[Tensor, "n c h w"],
    columns: int = 10,
    *,
    masks: Bool[Tensor, "n h w"] | None = None,
    zoom: int = 1,
) -> Image.Image:
    """Return the images, in [0, 1], row by row with a gap of two pixels; the outline of each mask in red."""
    check_images(images)
    shown = images.detach().cpu().float().expand(-1, 3, -1, -1)
    shown = shown.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    if masks is not None:
        area = masks[:, None].float().repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
        edge = (F.max_pool2d(area, 3, stride=1, padding=1) > area).expand(-1, 3, -1, -1)
        shown = torch.where(edge, torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1), shown)
    shown = F.pad(shown, (2, 2, 2, 2), value=1.0)
    rows = -(-len(shown) // columns)
    shown = F.pad(shown, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(shown)), value=1.0)
    sheet = rearrange(shown, "(r k) c h w -> (r h) (k w) c", k=columns)
    return Image.fromarray((sheet * 255).round().byte().numpy())
