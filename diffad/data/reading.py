"""Image files to tensors: every kind of file is read right or refused by name.

8-bit grey and colour are divided by 255, 16-bit grey by 65535. Palettes, CMYK and YCbCr become RGB, bilevel
images grey. An alpha channel that is opaque everywhere is dropped; one that is not is refused, since no
background colour would be right. Floating point, animated, blank-sized and damaged files are refused.
Photographs are turned upright as their EXIF orientation says.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float32
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from certify.checks import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".pnm")
SYSTEM_FILES = ("thumbs.db", "desktop.ini")
PLAIN = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
ALPHA = {"LA": "L", "La": "L", "PA": "RGB", "RGBA": "RGB", "RGBa": "RGB", "RGBX": "RGB"}
SIXTEEN = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def list_images(folder: Path) -> list[Path]:
    """Return the image files of one folder by name; hidden and system files are passed over.

    Raises `InputError` when the folder is empty or holds anything else.
    """
    found, others = images_and_others(folder)
    if others:
        kind = "a folder" if others[0].is_dir() else "not an image by its suffix"
        raise InputError(f"{others[0]}: {kind}; move it away, allowed here are {', '.join(SUFFIXES)}")
    if not found:
        raise InputError(f"{folder}: holds no image; put at least one there or remove the folder")
    return found


def images_and_others(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files of one folder, and what else lies there, both by name; hidden and system files aside."""
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in SYSTEM_FILES:
            continue
        is_image = path.suffix.lower() in SUFFIXES and not path.is_dir()
        (images if is_image else others).append(path)
    return images, others


def read_image(
    path: Path, *, resolution: int | None = None, channels: int | None = None
) -> Float32[Tensor, "c h w"]:
    """Read one file as float32 in [0, 1], grey (1 channel) or colour (3), as the file is unless `channels` says.

    `resolution` resizes to a square by Pillow's antialiased bilinear filter (aspect ratio is not kept),
    before any change to floating point for 8-bit images, so that the result is the same on every machine.
    Colour becomes grey by ITU-R 601 luma.
    """
    with _opened(path) as picture:
        return to_tensor(_upright(picture, path), resolution=resolution, channels=channels)


def read_mask(path: Path, image: Path, *, resolution: int | None = None) -> Bool[Tensor, "h w"]:
    """Read the defect mask of `image`: True where the file is at least half of its highest value.

    Under `resolution`, a pixel is defective when more than half of its area is; of a defect too small for
    that the pixels with the largest share stay, so that no defect vanishes. Raises `InputError` when the
    sizes differ.
    """
    with _opened(image) as picture:
        size = picture.size
    with _opened(path) as picture:
        if picture.size != size:
            raise InputError(f"{path}: mask is {picture.size}, its image {image.name} {size}; need one size")
        values = np.asarray(picture.convert("L"), dtype=np.float32)
    area = (values >= max(values.max() / 2, 1)).astype(np.float32)
    if resolution is not None:
        share = np.asarray(Image.fromarray(area).resize((resolution, resolution), Image.Resampling.BOX))
        area = share > 0.5 if (share > 0.5).any() else (share > 0) & (share >= share.max())
    return torch.from_numpy(area.astype(bool))


def to_tensor(
    picture: Image.Image, *, resolution: int | None = None, channels: int | None = None
) -> Float32[Tensor, "c h w"]:
    """Turn a picture of mode L, RGB or F (16-bit codes) into float32 (channel, height, width) in [0, 1]."""
    if picture.mode == "RGB" and channels == 1:
        picture = picture.convert("L")
    if resolution is not None and picture.size != (resolution, resolution):
        picture = picture.resize((resolution, resolution), Image.Resampling.BILINEAR)
    scale = 65535.0 if picture.mode == "F" else 255.0
    values = torch.from_numpy(np.array(picture, dtype=np.float32)) / scale
    image = values[None] if values.ndim == 2 else rearrange(values, "h w c -> c h w").contiguous()
    return image.expand(channels or image.shape[0], -1, -1).contiguous()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open and decode a file; whatever is wrong with it is said with its name."""
    try:
        with Image.open(path) as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames > 1:
                raise InputError(f"{path}: holds {frames} frames; need one image a file")
            picture.load()
            yield picture
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        if path.stat().st_size == 0:
            reason = "empty file"
        elif isinstance(error, UnidentifiedImageError):
            reason = "not an image, or damaged"
        else:
            reason = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as an image ({reason}); repair or remove it") from error


def _upright(picture: Image.Image, path: Path) -> Image.Image:
    """Return the picture in mode L, RGB or F (16-bit codes), or refuse it by name."""
    picture = ImageOps.exif_transpose(picture)
    mode = picture.mode
    if mode in SIXTEEN:
        codes = np.asarray(picture).astype(np.int64)
        if codes.min() < 0 or codes.max() > 65535:
            raise InputError(f"{path}: 32-bit values up to {codes.max()}; save it with 8 or 16 bits")
        return Image.fromarray(codes.astype(np.float32))
    if mode in ALPHA or "transparency" in picture.info:
        full = picture.convert("RGBA")
        if full.getchannel("A").getextrema() != (255, 255):
            raise InputError(f"{path}: has transparent pixels; flatten it onto a background of your choice")
        return full.convert(ALPHA.get(mode) or PLAIN[mode])
    if mode not in PLAIN:
        raise InputError(f"{path}: image mode {mode} is not supported; save it as 8- or 16-bit grey or RGB")
    return picture.convert(PLAIN[mode])
