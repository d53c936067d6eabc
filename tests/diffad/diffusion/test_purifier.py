from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from certify.checks import InputError
from diffad.diffusion.model import PREDICTION_TYPES
from diffad.diffusion.purifier import Purifier
from diffad.diffusion.schedule import sigmas_of_schedule


def test_one_shot_is_the_denoiser(tiny) -> None:
    denoiser, noisy = tiny.denoiser(), tiny.images(3)
    assert torch.equal(Purifier(denoiser).reconstruct(noisy, 0.5), denoiser.denoise(noisy, 0.5))


def test_the_loop_of_one_shot_is_the_closed_form(tiny) -> None:
    purifier, noisy = Purifier(tiny.denoiser(prediction_type="epsilon")), tiny.images(3)
    looped = purifier._several_shots(noisy, 0.5)
    torch.testing.assert_close(looped, purifier.reconstruct(noisy, 0.5), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_several_shots_are_the_steps_of_diffusers(kind, tiny) -> None:
    """m - 1 calls of DDPMScheduler.step with the same noise, then its estimate of the clean image."""
    denoiser, noisy, shots = tiny.denoiser(prediction_type=kind), tiny.images(1), 4
    scheduler = DDPMScheduler(1000, prediction_type=kind, clip_sample=False, variance_type="fixed_small")
    sigma, generator = (
        float(sigmas_of_schedule(denoiser.alphas_cumprod)[60]),
        torch.Generator().manual_seed(5),
    )
    u = denoiser.alphas_cumprod[60].sqrt() * (2 * noisy - 1)
    for timestep in (60, 59, 58, 57):
        prediction = denoiser(u, torch.tensor([timestep]))
        step = scheduler.step(prediction, timestep, u, generator=generator)
        u, clean = step.prev_sample, step.pred_original_sample
    ours = Purifier(denoiser, shots=shots, seed=5).reconstruct(noisy, sigma)
    torch.testing.assert_close(ours, (clean + 1) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("timestep", [1, 145, 999])
def test_an_ancestral_step_has_the_mean_and_variance_of_diffusers(timestep: int, tiny) -> None:
    purifier = Purifier(tiny.denoiser(), shots=2)
    scheduler = DDPMScheduler(1000, prediction_type="sample", clip_sample=False)
    u, clean = torch.randn(2, *tiny.shape), tiny.images(2)
    known = scheduler.step(clean, timestep, u, generator=torch.Generator().manual_seed(3)).prev_sample
    drawn = torch.randn(u.shape, generator=torch.Generator().manual_seed(3))
    ours = purifier._ancestral_step(u, clean, timestep, drawn)
    torch.testing.assert_close(ours, known, rtol=1e-4, atol=1e-5)
    spread = (ours - purifier._ancestral_step(u, clean, timestep, 0 * drawn)) / drawn
    torch.testing.assert_close(
        spread.mean().square(), scheduler._get_variance(timestep), rtol=1e-3, atol=1e-9
    )


def test_several_shots_are_a_function_of_their_input(tiny) -> None:
    purifier, noisy = Purifier(tiny.denoiser(), shots=3), tiny.images(4)
    state = torch.get_rng_state()
    first = purifier.reconstruct(noisy, 0.25)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, purifier.reconstruct(noisy, 0.25))
    for i in range(4):
        torch.testing.assert_close(
            purifier.reconstruct(noisy[i : i + 1], 0.25)[0], first[i], rtol=1e-4, atol=1e-5
        )
    other = Purifier(purifier.denoiser, shots=3, seed=1).reconstruct(noisy, 0.25)
    assert not torch.equal(other, first)


def test_gradients_pass_through_every_shot(tiny) -> None:
    purifier, noisy = (
        Purifier(tiny.denoiser(prediction_type="epsilon"), shots=3),
        tiny.images(2).requires_grad_(),
    )
    (gradient,) = torch.autograd.grad(purifier.reconstruct(noisy, 0.25).sum(), noisy)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    assert not any(parameter.requires_grad for parameter in purifier.parameters())


def test_impossible_numbers_of_shots_are_refused(tiny) -> None:
    with pytest.raises(InputError, match="shots: got 0"):
        Purifier(tiny.denoiser(), shots=0)
    sigma = float(sigmas_of_schedule(tiny.denoiser().alphas_cumprod)[3])
    assert Purifier(tiny.denoiser(), shots=4).reconstruct(tiny.images(1), sigma).shape == (1, *tiny.shape)
    with pytest.raises(InputError, match="at most 4 shots"):
        Purifier(tiny.denoiser(), shots=5).reconstruct(tiny.images(1), sigma)


def test_purify_adds_the_noise_and_clips(tiny) -> None:
    purifier, images = Purifier(tiny.denoiser(prediction_type="epsilon")), tiny.images(3)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    pure = purifier.purify(images, 0.5, noise)
    assert torch.equal(pure, purifier.reconstruct(images + 0.5 * noise, 0.5).clamp(0, 1))
    assert pure.min() >= 0
    assert pure.max() <= 1
