"""Reconstruction of a noisy image by a diffusion model, as an object that other detectors can be given."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from certify.checks import InputError
from diffad.attacks.gradients import Reconstruct, Run, run, run_checkpointed
from diffad.diffusion.model import Denoiser

FEWER_SHOTS = (1, 2, 5, 10)  # of the surrogate processes offered to attacks


class Purifier(nn.Module):
    """Denoises x + sigma * e with one network call, or with `shots` of them.

    m-shot (ICLR 2023 version of AdvRAD): m - 1 ancestral DDPM steps from x_k to x_(k-m+1), then the closed form.
    The noise of the ancestral steps is drawn once from `seed` and shared by every call, so that `reconstruct` is a
    function of its input, and a certificate over the input noise needs no further argument.
    """

    def __init__(self, denoiser: Denoiser, *, shots: int = 1, seed: int = 0, autocast: bool = False) -> None:
        super().__init__()
        if shots < 1:
            raise InputError(f"shots: got {shots}, need at least 1")
        self.denoiser = denoiser.eval().requires_grad_(False)
        self.shots, self.seed, self.autocast = shots, seed, autocast
        self._drawn: dict[tuple[int, ...], list[Tensor]] = {}

    def reconstruct(self, noisy: Float[Tensor, "b c h w"], sigma: float) -> Float[Tensor, "b c h w"]:
        """Estimate x from noisy = x + sigma * e (pixel units, not clipped)."""
        return self._reconstruct(noisy, sigma, run)

    def processes(self) -> dict[str, Reconstruct]:
        """Return `reconstruct` checkpointed, and with fewer shots, by name (`diffad.attacks.gradients`)."""
        fewer = {f"{shots}_shot" + "s" * (shots > 1): shots for shots in FEWER_SHOTS if shots < self.shots}
        return {
            "checkpointed": partial(self._reconstruct, run=run_checkpointed),
            **{name: self._with_shots(shots).reconstruct for name, shots in fewer.items()},
        }

    def purify(
        self, images: Float[Tensor, "b c h w"], sigma: float, noise: Float[Tensor, "b c h w"]
    ) -> Tensor:
        """Add sigma * noise (standard normal), reconstruct, clip to [0, 1] (DiffPure in one shot)."""
        return self.reconstruct(images + sigma * noise, sigma).clamp(0.0, 1.0)

    def _with_shots(self, shots: int) -> Purifier:
        return Purifier(self.denoiser, shots=shots, seed=self.seed, autocast=self.autocast)

    def _reconstruct(self, noisy: Tensor, sigma: float, run: Run) -> Tensor:
        """Reconstruct, with `run` around each network call."""
        if self.shots == 1:
            return run(partial(self.denoiser.denoise, autocast=self.autocast), noisy, sigma)
        return self._several_shots(noisy, sigma, run)

    def _several_shots(self, noisy: Tensor, sigma: float, run: Run = run) -> Tensor:
        abar = self.denoiser.alphas_cumprod
        start = self.denoiser.timestep(sigma)
        if self.shots > start + 1:
            raise InputError(
                f"shots: got {self.shots}, sigma {sigma} is timestep {start}; at most {start + 1} shots"
            )
        noises = self._step_noises(tuple(noisy.shape[1:]))
        u = abar[start].sqrt() * (2.0 * noisy - 1.0)
        for timestep in range(start, start - self.shots, -1):
            clean = run(self._clean, u, timestep)
            if timestep == start - self.shots + 1:
                return (clean + 1.0) / 2.0
            u = self._ancestral_step(u, clean, timestep, noises[start - timestep].to(u))
        raise AssertionError("unreachable: the loop returns at its last timestep")

    def _step_noises(self, shape: tuple[int, ...]) -> list[Tensor]:
        """Return the noise (c, h, w) of each ancestral step, drawn at the first image of a shape and kept.

        Kept so that it is a constant of an exported graph, which has no generator.
        """
        if shape not in self._drawn:
            generator = torch.Generator().manual_seed(self.seed)
            self._drawn[shape] = [torch.randn(shape, generator=generator) for _ in range(self.shots - 1)]
        return self._drawn[shape]

    def _clean(self, u: Tensor, timestep: int) -> Tensor:
        """Estimate x_0 from x_t = u by one network call; both in the units of the model."""
        timesteps = u.new_full(u.shape[:1], timestep, dtype=torch.long)
        with torch.autocast(u.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            prediction = self.denoiser(u, timesteps)
        return self.denoiser.clean_from_prediction(u, prediction, timesteps)

    def _ancestral_step(self, u: Tensor, clean: Tensor, timestep: int, noise: Tensor) -> Tensor:
        """x_(t-1) ~ q(x_(t-1) | x_t, x_0 = clean) (Ho et al. 2020, eqs. 6 and 7)."""
        abar = self.denoiser.alphas_cumprod
        now, before = abar[timestep], abar[timestep - 1]
        beta = 1.0 - now / before
        mean = (before.sqrt() * beta * clean + (1.0 - beta).sqrt() * (1.0 - before) * u) / (1.0 - now)
        return mean + (beta * (1.0 - before) / (1.0 - now)).sqrt() * noise
