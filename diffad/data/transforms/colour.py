"""Colour jitter of a batch, each image by its own factors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffad.data.transforms.base import Draw, Drawn, Rng, scalar

_LUMA = (0.299, 0.587, 0.114)


def draw_jitter(rng: Rng, brightness: float, contrast: float, saturation: float, hue: float) -> Draw:
    """Draw factors as torchvision's ColorJitter does: U(1 - strength, 1 + strength); hue U(-hue, hue) of a turn."""
    names = (("brightness", brightness), ("contrast", contrast), ("saturation", saturation))
    factors = {name: rng.uniform(max(0.0, 1 - most), 1 + most) for name, most in names}
    return {**factors, "hue": rng.uniform(-hue, hue)}


def jitter(images: Float[Tensor, "b c h w"], drawn: Drawn) -> Float[Tensor, "b c h w"]:
    """Return the images with brightness, contrast, saturation and hue changed, in this order, in [0, 1].

    Hue is turned linearly in YIQ, which keeps the luma; on images of one channel saturation and hue do nothing.
    """
    bright = (images * scalar(drawn["brightness"])).clamp(0, 1)
    # in float64: the order of a sum may depend on the batch, and must not show in the result
    mean = grey(bright).double().mean(dim=(1, 2, 3), keepdim=True).to(images.dtype)
    result = (mean + scalar(drawn["contrast"]) * (bright - mean)).clamp(0, 1)
    if images.shape[1] == 3:
        luma = grey(result)
        result = (luma + scalar(drawn["saturation"]) * (result - luma)).clamp(0, 1)
        result = turn_hue(result, drawn["hue"]).clamp(0, 1)
    return result


def grey(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
    """Return the luma (ITU-R 601) of colour images; images of one channel as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def turn_hue(images: Float[Tensor, "b 3 h w"], turns: Float[Tensor, " b"]) -> Float[Tensor, "b 3 h w"]:
    """Return the images with the plane of I and Q (of YIQ) rotated by so many full turns; not clipped."""
    luma = grey(images)
    red, blue = images[:, 0:1] - luma, images[:, 2:3] - luma
    # R - Y and B - Y span the colours of one luma; I and Q (NTSC) are another basis of that plane
    in_phase, quadrature = 0.7358 * red - 0.2684 * blue, 0.4778 * red + 0.4127 * blue
    cos, sin = torch.cos(2 * torch.pi * scalar(turns)), torch.sin(2 * torch.pi * scalar(turns))
    i, q = cos * in_phase - sin * quadrature, sin * in_phase + cos * quadrature
    determinant = 0.7358 * 0.4127 + 0.2684 * 0.4778
    red, blue = (0.4127 * i + 0.2684 * q) / determinant, (0.7358 * q - 0.4778 * i) / determinant
    green = -(_LUMA[0] * red + _LUMA[2] * blue) / _LUMA[1]
    return torch.cat([luma + red, luma + green, luma + blue], dim=1)
