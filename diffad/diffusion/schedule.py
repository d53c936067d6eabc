"""The one map between noise in pixels and timesteps of a diffusion schedule.

Images x lie in [0, 1]; a diffusion model sees u = 2 x - 1. Its forward process divided by sqrt(abar_t) is
u + s_t * e with s_t = sqrt((1 - abar_t) / abar_t), e ~ N(0, I), which in pixels is x + sigma_t * e with

    sigma_t = s_t / 2 .

(Carlini et al., "(Certified!!) Adversarial Robustness for Free!", 2023, section 3; the factor 2 is the unit change.)

>>> from diffusers import DDPMScheduler
>>> timestep_for_sigma(DDPMScheduler(1000).alphas_cumprod, 0.25)
145
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_positive
from certify.types import FloatArray


def sigmas_of_schedule(alphas_cumprod: Float[Tensor, " steps"]) -> FloatArray:
    """Noise of each timestep in [0, 1] pixel units, float64 (steps,), increasing."""
    abar = alphas_cumprod.detach().cpu().double().numpy()
    return np.asarray(0.5 * np.sqrt((1.0 - abar) / abar), dtype=np.float64)


def timestep_for_sigma(alphas_cumprod: Float[Tensor, " steps"], sigma: float) -> int:
    """Smallest timestep whose noise is at least `sigma` (pixel units); the network is conditioned on it.

    The noise that is added, and certified, is `sigma` itself: the timestep is only a label given to the network,
    so rounding it costs accuracy, never soundness.
    """
    return timestep_of(sigmas_of_schedule(alphas_cumprod), sigma)


def timestep_of(sigmas: FloatArray, sigma: float) -> int:
    """Return `timestep_for_sigma`, given the noise of each timestep as `sigmas_of_schedule` returns it."""
    check_positive(sigma, "sigma")
    timestep = int(np.searchsorted(sigmas, sigma, side="left"))
    if timestep >= len(sigmas):
        raise InputError(
            f"sigma: got {sigma}, the schedule of this model ends at {sigmas[-1]:.4g} (pixel units); use a smaller one"
        )
    return timestep
