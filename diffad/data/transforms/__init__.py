"""Hard transforms, which make a normal image anomalous, and light views, which do not.

>>> import torch
>>> from diffad.data.transforms import HARD_TRANSFORMS, apply
>>> images = torch.rand(2, 1, 16, 16)
>>> apply("rotation", images, seeds=[0, 1]).shape
torch.Size([2, 1, 16, 16])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_choice, check_images
from diffad.data.transforms.base import HardTransform, Seeds, check_seeds
from diffad.data.transforms.degrading import Blur, Noise
from diffad.data.transforms.erasing import Cutout, RandomErasing
from diffad.data.transforms.geometry import Crop, Elastic, Jigsaw, QuarterTurns, Rotation
from diffad.data.transforms.light import LightView
from diffad.data.transforms.mixing import CutMix, Mixup
from diffad.data.transforms.pasting import CutPaste, CutPasteScar

HARD_TRANSFORMS: dict[str, HardTransform] = {
    "jigsaw": Jigsaw(),
    "random_erasing": RandomErasing(),
    "cutpaste": CutPaste(),
    "cutpaste_scar": CutPasteScar(),
    "rotation": Rotation(),
    "blur": Blur(),
    "crop_intense": Crop(0.5, 0.8),
    "crop_extreme": Crop(0.4, 0.6, centre=True),
    "noise": Noise(),
    "mixup": Mixup(),
    "cutout": Cutout(),
    "cutmix": CutMix(),
    "elastic": Elastic(),
}
TRANSFORMS: dict[str, HardTransform] = {**HARD_TRANSFORMS, "rotation90": QuarterTurns()}


def apply(
    name: str,
    images: Float[Tensor, "b c h w"],
    *,
    seeds: Seeds,
    partners: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Return the images under one transform of `TRANSFORMS`, each by the draw of its own seed, clipped to [0, 1].

    Args:
        name: key of `TRANSFORMS`.
        images: in [0, 1].
        seeds: one whole number of at least 0 for each image; its result depends on nothing else.
        partners: another image for each; mixup and cutmix need them.
    """
    check_choice(name, tuple(TRANSFORMS), "transform")
    return TRANSFORMS[name](images, seeds=seeds, partners=partners)


def apply_each(
    names: Sequence[str],
    images: Float[Tensor, "b c h w"],
    *,
    seeds: Seeds,
    partners: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Return each image under its own transform, `names[i]`; images of one name are changed together."""
    check_images(images)
    numbers = check_seeds(seeds, len(images))
    if len(names) != len(images):
        raise InputError(f"names: got {len(names)} for {len(images)} images; need one transform an image")
    result = torch.empty_like(images)
    for name in dict.fromkeys(names):
        rows = [row for row, other in enumerate(names) if other == name]
        others = None if partners is None else partners[rows]
        result[rows] = apply(name, images[rows], seeds=[numbers[row] for row in rows], partners=others)
    return result


def light_view(
    images: Float[Tensor, "b c h w"], *, seeds: Seeds, flip: bool = False
) -> Float[Tensor, "b c h w"]:
    """Return a positive view of each image (COBRA, App. D.2; see `LightView`), by the draw of its own seed."""
    return LightView(flip=flip)(images, seeds=seeds)


__all__ = [
    "HARD_TRANSFORMS",
    "TRANSFORMS",
    "HardTransform",
    "LightView",
    "apply",
    "apply_each",
    "light_view",
]
