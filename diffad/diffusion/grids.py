"""Grids of images that show what a denoiser has learnt: samples, reconstructions at several noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from certify.files import write_atomic
from diffad.diffusion.model import Denoiser

SHOWN_SIGMAS = (0.1, 0.25, 0.5, 1.0)


@torch.inference_mode()
def sample(
    denoiser: Denoiser, shape: tuple[int, int, int], count: int, *, seed: int, inference_steps: int = 50
) -> Float[Tensor, "n c h w"]:
    """Draw `count` images of `shape` in [0, 1] by deterministic DDIM (Song et al. 2021, eq. 12)."""
    scheduler = DDIMScheduler.from_config(denoiser.scheduler.config)
    scheduler.set_timesteps(min(inference_steps, scheduler.config.num_train_timesteps))
    device = denoiser.alphas_cumprod.device
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn((count, *shape), generator=generator).to(device)
    for timestep in scheduler.timesteps:
        prediction = denoiser(u, torch.full((count,), int(timestep), device=device))
        u = scheduler.step(prediction, timestep, u, eta=0.0).prev_sample
    return ((u + 1.0) / 2.0).clamp(0.0, 1.0)


@torch.inference_mode()
def reconstruction_rows(
    denoiser: Denoiser, images: Float[Tensor, "n c h w"], sigmas: Sequence[float], *, seed: int
) -> Float[Tensor, "rows c h w"]:
    """Return the images, then for each sigma the noisy images and their reconstructions, each a row of n."""
    generator = torch.Generator().manual_seed(seed)
    device = denoiser.alphas_cumprod.device
    clean = images.to(device)
    rows = [clean]
    for sigma in sigmas:
        noisy = clean + sigma * torch.randn(images.shape, generator=generator).to(device)
        rows += [noisy, denoiser.denoise(noisy, sigma)]
    return torch.cat(rows).clamp(0.0, 1.0)


def grid(
    images: Float[Tensor, "n c h w"], columns: int, *, gap: int = 1, zoom: int = 1
) -> UInt8[Tensor, "height width c"]:
    """Lay images in [0, 1] out row by row on grey, `gap` pixels apart, each pixel drawn `zoom` times."""
    missing = -len(images) % columns
    tiles = torch.cat([images.cpu(), torch.full((missing, *images.shape[1:]), 0.5)])
    tiles = torch.nn.functional.interpolate(tiles, scale_factor=zoom, mode="nearest")
    tiles = torch.nn.functional.pad(tiles, (0, gap, 0, gap), value=0.5)
    sheet = rearrange(tiles, "(rows columns) c h w -> (rows h) (columns w) c", columns=columns)
    return (255.0 * sheet).round().to(torch.uint8)


def save_png(path: Path, pixels: UInt8[Tensor, "height width c"]) -> None:
    """Write a grey or colour PNG by atomic rename."""
    array = pixels.numpy()
    image = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    write_atomic(path, lambda temporary: image.save(temporary, format="PNG"))


def draw_grids(
    denoiser: Denoiser,
    images: Float[Tensor, "n c h w"],
    folder: Path,
    *,
    step: int,
    sigmas: Sequence[float],
    with_samples: bool,
    seed: int,
) -> None:
    """Write `reconstructions-{step}.png` of `images`, and `samples-{step}.png` if wanted, into `folder`."""
    zoom = max(1, 64 // images.shape[-1])
    rows = reconstruction_rows(denoiser, images, sigmas, seed=seed)
    save_png(folder / f"reconstructions-{step:06d}.png", grid(rows, len(images), zoom=zoom))
    if with_samples:
        _, channels, height, width = images.shape
        drawn = sample(denoiser, (channels, height, width), 32, seed=seed)
        save_png(folder / f"samples-{step:06d}.png", grid(drawn, 8, zoom=zoom))
