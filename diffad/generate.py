"""New normal images from a denoiser, for detectors that learn from more of them than there are.

A score such as the distance to the nearest normal image has a Lipschitz constant whatever its bank holds, so a
bank that a network has made is certified without noise and without trust in the network: what it learned decides
how good the score is, never whether the bound holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_images, check_positive
from certify.noise import gaussian_noise
from certify.sure import Reconstruct

# Noise of the steps, falling, in [0, 1] pixel units: about the range that the networks here are trained on.
LEVELS: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5, 0.25, 0.12)
_BATCH = 250


@torch.no_grad()
def generate(
    reconstruct: Reconstruct,
    train: Float[Tensor, "n c h w"],
    count: int,
    *,
    sigmas: Sequence[float] = LEVELS,
    seed: int = 0,
) -> Float[Tensor, "count c h w"]:
    """Return `count` images in [0, 1]: denoise from much noise, add less, denoise again, down to the last level.

    Each image starts as the mean of `train` plus noise of sigmas[0] (so that must drown what tells images
    apart) and takes one denoising step a level. It is the multistep sampling of consistency models (Song et al.,
    ICML 2023, algorithm 1) with a posterior mean in the place of a consistency function: few steps, no schedule,
    any denoiser. The noise is keyed by (seed, image, level); a larger `count` begins with the same images.

    Args:
        reconstruct: the clean image, given (image + N(0, sigma^2), sigma).
        train: normal images in [0, 1]; only their mean is used.
        sigmas: of the levels, falling, each within what the denoiser was trained on.
    """
    check_images(train, name="train")
    if count < 1:
        raise InputError(f"generated: got {count}, need at least 1 image")
    for sigma in sigmas:
        check_positive(sigma, "generator_sigmas")
    if len(sigmas) == 0 or any(b >= a for a, b in pairwise(sigmas)):
        raise InputError(f"generator_sigmas: got {', '.join(f'{s:g}' for s in sigmas)}, need falling values")
    batches = []
    for first in range(0, count, _BATCH):
        names = range(
            first, first + _BATCH
        )  # always a full batch, whose shape decides the last bits of float32
        images = train.mean(0, keepdim=True).expand(_BATCH, -1, -1, -1)
        for level, sigma in enumerate(sigmas):
            noise = np.stack([gaussian_noise(seed, name, "fit", level, train.shape[1:]) for name in names])
            images = reconstruct(images + sigma * torch.from_numpy(noise).to(images), sigma)
        batches.append(images.clamp(0.0, 1.0))
    return torch.cat(batches)[:count]
