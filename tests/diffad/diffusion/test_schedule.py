from __future__ import annotations

import numpy as np
import pytest
from diffusers import DDPMScheduler
from torch import Tensor

from certify.checks import InputError
from diffad.diffusion.schedule import sigmas_of_schedule, timestep_for_sigma


def table(kind: str) -> Tensor:
    return DDPMScheduler(1000, beta_schedule=kind).alphas_cumprod


@pytest.mark.parametrize(
    ("timestep", "sigma"),
    [
        *[(49, 0.0864), (50, 0.0880), (74, 0.1273), (99, 0.1694), (149, 0.2591), (199, 0.3596)],
        *[(249, 0.4765), (299, 0.6170), (399, 1.0154)],
    ],
)
def test_noise_of_linear_timesteps(timestep: int, sigma: float) -> None:
    assert sigmas_of_schedule(table("linear"))[timestep] == pytest.approx(sigma, abs=5e-5)


@pytest.mark.parametrize(
    ("sigma", "linear", "cosine"),
    [
        *[(0.05, 27, 56), (0.10, 58, 118), (0.12, 70, None), (0.125, 73, 149), (0.20, 117, 236)],
        *[(0.25, 145, 289), (0.30, 171, None), (0.50, 259, 496), (0.75, 339, None), (1.0, 396, 702)],
    ],
)
def test_timestep_of_a_noise_level(sigma: float, linear: int, cosine: int | None) -> None:
    assert timestep_for_sigma(table("linear"), sigma) == linear
    if cosine is not None:
        assert timestep_for_sigma(table("squaredcos_cap_v2"), sigma) == cosine


def test_pixels_are_half_of_model_units() -> None:
    abar = table("linear").double().numpy()
    np.testing.assert_allclose(
        2 * sigmas_of_schedule(table("linear")), np.sqrt((1 - abar) / abar), rtol=1e-12
    )


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_it_is_the_smallest_timestep_with_at_least_that_noise(kind: str) -> None:
    sigmas = sigmas_of_schedule(table(kind))
    assert sigmas.dtype == np.float64
    assert (np.diff(sigmas) > 0).all()
    for timestep in (0, 1, 500, 999):
        assert timestep_for_sigma(table(kind), float(sigmas[timestep])) == timestep
        below = float(np.nextafter(sigmas[timestep], 0))
        assert timestep_for_sigma(table(kind), below) == timestep
    above = float(np.nextafter(sigmas[500], np.inf))
    assert timestep_for_sigma(table(kind), above) == 501


@pytest.mark.parametrize("sigma", [0.0, -0.25, float("nan"), float("inf")])
def test_what_is_no_noise_level_is_refused(sigma: float) -> None:
    with pytest.raises(InputError, match="sigma"):
        timestep_for_sigma(table("linear"), sigma)


def test_noise_beyond_the_schedule_is_refused_with_its_end() -> None:
    end = sigmas_of_schedule(table("linear"))[-1]
    with pytest.raises(InputError, match=f"ends at {end:.4g}"):
        timestep_for_sigma(table("linear"), float(end) * 1.001)
