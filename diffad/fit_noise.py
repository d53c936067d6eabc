"""Training images under noise, for a detector that is to be certified under noise.

seen = noisy_copies(train, sigma=0.25, copies=2, seed=0)
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_positive
from certify.noise import gaussian_noise


def noisy_copies(
    images: Float[Tensor, "n c h w"], sigma: float, copies: int, seed: int
) -> Float[Tensor, "m c h w"]:
    """Return `copies` versions of every image under Gaussian noise, each keyed by seed, image and copy.

    The noise has a purpose of its own: a detector fitted on draws that certify it later would not be independent of
    them, and the certificate void.
    """
    check_positive(sigma, "noise_sigma")
    if copies < 1:
        raise InputError(f"noise_copies: got {copies}, need at least 1")
    noise = np.stack(
        [
            gaussian_noise(seed, image, "fit", copy, images.shape[1:])
            for copy in range(copies)
            for image in range(len(images))
        ]
    )
    repeated = images.double().cpu().repeat(copies, 1, 1, 1)
    return (repeated + sigma * torch.from_numpy(noise)).to(images)
