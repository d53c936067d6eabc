"""The denoising network: a diffusers UNet2DModel, optionally behind a space-to-depth rearrangement.

Space-to-depth by f moves each f x f block of pixels into channels before the first convolution and back after the
last: a permutation of the pixels, so every L2 norm, radius and noise level stays what it was, at a quarter (f = 2)
of the positions to convolve.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from certify.checks import InputError, check_choice
from certify.files import write_json
from diffad.diffusion.schedule import sigmas_of_schedule, timestep_of
from diffad.folder import one_line

PredictionType: TypeAlias = Literal["epsilon", "v_prediction", "sample"]
PREDICTION_TYPES: tuple[PredictionType, ...] = ("epsilon", "v_prediction", "sample")


class Denoiser(nn.Module):
    """A UNet with its noise schedule: predicts from noisy images, and denoises in one shot.

    Args:
        unet: network on (batch, channel * f * f, height / f, width / f) tensors in [-1, 1] units.
        scheduler: its schedule; `prediction_type` says what the network predicts.
        space_to_depth: the factor f; 1 leaves the pixels where they are.
    """

    alphas_cumprod: Tensor

    def __init__(self, unet: UNet2DModel, scheduler: DDPMScheduler, space_to_depth: int = 1) -> None:
        super().__init__()
        check_choice(scheduler.config.prediction_type, PREDICTION_TYPES, "prediction_type")
        if unet.config.in_channels != unet.config.out_channels:
            raise InputError(
                f"unet: {unet.config.in_channels} channels in and {unet.config.out_channels} out (a learnt variance?); "
                "need as many out as in"
            )
        self.unet = unet
        self.scheduler = scheduler
        self.space_to_depth = space_to_depth
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone().float(), persistent=False)
        # an array and not a tensor, so that an exported graph has the timestep as a constant
        self.sigmas = sigmas_of_schedule(scheduler.alphas_cumprod.float())

    @classmethod
    def build(
        cls,
        image_shape: tuple[int, int, int],
        *,
        block_out_channels: Sequence[int] = (64, 128),
        layers_per_block: int = 1,
        attention_levels: Sequence[int] = (),
        space_to_depth: int = 1,
        norm_num_groups: int = 32,
        dropout: float = 0.0,
        prediction_type: PredictionType = "epsilon",
        beta_schedule: str = "linear",
        num_train_timesteps: int = 1000,
    ) -> Denoiser:
        """Make an untrained network for images (channel, height, width).

        `attention_levels` names the levels (0 = full resolution of the UNet) that get self-attention.
        """
        channels, height, width = image_shape
        factor = space_to_depth * 2 ** (len(block_out_channels) - 1)
        if height % factor or width % factor:
            raise InputError(
                f"resolution {height} x {width}: space_to_depth {space_to_depth} and {len(block_out_channels)} levels "
                f"need a multiple of {factor}; resize, or use fewer levels"
            )
        levels = range(len(block_out_channels))
        unet = UNet2DModel(
            sample_size=(height // space_to_depth, width // space_to_depth),
            in_channels=channels * space_to_depth**2,
            out_channels=channels * space_to_depth**2,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            down_block_types=tuple(
                "AttnDownBlock2D" if i in attention_levels else "DownBlock2D" for i in levels
            ),
            up_block_types=tuple(
                "AttnUpBlock2D" if i in attention_levels else "UpBlock2D" for i in reversed(levels)
            ),
            add_attention=bool(attention_levels),
            norm_num_groups=norm_num_groups,
            dropout=dropout,
            resnet_time_scale_shift="scale_shift",
        )
        scheduler = DDPMScheduler(
            num_train_timesteps=num_train_timesteps,
            beta_schedule=beta_schedule,
            prediction_type=prediction_type,
        )
        return cls(unet, scheduler, space_to_depth)

    @property
    def prediction_type(self) -> PredictionType:
        """What the network predicts: the noise, v, or the clean sample."""
        prediction: PredictionType = self.scheduler.config.prediction_type
        return prediction

    def forward(
        self, u_t: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """Predict (noise, v or sample) from noisy images u_t in model space."""
        f = self.space_to_depth
        folded = rearrange(u_t, "b c (h p) (w q) -> b (c p q) h w", p=f, q=f) if f > 1 else u_t
        prediction: Tensor = self.unet(folded, timesteps, return_dict=False)[0]
        return rearrange(prediction, "b (c p q) h w -> b c (h p) (w q)", p=f, q=f) if f > 1 else prediction

    def _signal_and_noise(self, timesteps: Int[Tensor, " b"]) -> tuple[Tensor, Tensor]:
        abar = self.alphas_cumprod[timesteps][:, None, None, None]
        return abar.sqrt(), (1.0 - abar).sqrt()

    def add_noise(
        self, u_0: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The forward process: sqrt(abar_t) u_0 + sqrt(1 - abar_t) noise."""
        signal, spread = self._signal_and_noise(timesteps)
        return signal * u_0 + spread * noise

    def training_target(
        self, u_0: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timesteps: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """What `forward` should predict for u_t = add_noise(u_0, noise, t)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return u_0
        signal, spread = self._signal_and_noise(timesteps)
        return signal * noise - spread * u_0

    def clean_from_prediction(
        self,
        u_t: Float[Tensor, "b c h w"],
        prediction: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """The estimate of u_0 in closed form (Ho et al. 2020, eq. 15; Salimans and Ho 2022, eq. for v), in float32."""
        signal, spread = self._signal_and_noise(timesteps)
        prediction = prediction.float()
        if self.prediction_type == "epsilon":
            return (u_t - spread * prediction) / signal
        if self.prediction_type == "sample":
            return prediction
        return signal * u_t - spread * prediction

    def timestep(self, sigma: float) -> int:
        """Return the timestep that the network is conditioned on at noise `sigma` (`timestep_for_sigma`)."""
        return timestep_of(self.sigmas, sigma)

    def denoise(
        self, noisy: Float[Tensor, "b c h w"], sigma: float, *, autocast: bool = False
    ) -> Float[Tensor, "b c h w"]:
        """One-shot reconstruction in pixels of `noisy` = x + sigma * e (pixel units, not clipped to [0, 1]).

        A function of `noisy` alone. `autocast` runs the network in bfloat16; the closed form stays in float32.
        """
        timesteps = noisy.new_full(noisy.shape[:1], self.timestep(sigma), dtype=torch.long)
        signal, _ = self._signal_and_noise(timesteps)
        u_t = signal * (2.0 * noisy - 1.0)
        with torch.autocast(noisy.device.type, dtype=torch.bfloat16, enabled=autocast):
            prediction = self(u_t, timesteps)
        return (self.clean_from_prediction(u_t, prediction, timesteps) + 1.0) / 2.0

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `unet/`, `scheduler/` and `denoiser.json`; without space-to-depth also a diffusers DDPM pipeline."""
        folder = Path(folder)
        if self.space_to_depth == 1:
            DDPMPipeline(self.unet, self.scheduler).save_pretrained(folder, safe_serialization=True)
        else:
            self.unet.save_pretrained(folder / "unet", safe_serialization=True)
            self.scheduler.save_pretrained(folder / "scheduler")
        write_json(folder / "denoiser.json", {"space_to_depth": self.space_to_depth})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Denoiser:
        """Load from a local folder: ours, or any diffusers DDPM folder with `unet/` and `scheduler/`."""
        folder = Path(folder)
        for part in ("unet", "scheduler"):
            if not (folder / part).is_dir():
                raise FileNotFoundError(
                    f"{folder}: no {part}/ folder; need a diffusers DDPM folder or a diffad one"
                )
        try:
            # diffusers fills missing weights with random ones and only warns; what it reports is refused here
            unet, report = UNet2DModel.from_pretrained(
                folder / "unet", use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
            )
            scheduler = DDPMScheduler.from_pretrained(folder / "scheduler")
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"{folder}: cannot be read ({one_line(error)})") from error
        wrong = {kind: names for kind, names in report.items() if names}
        if wrong:
            raise InputError(f"{folder / 'unet'}: weights do not fit the configuration: {str(wrong)[:200]}")
        return cls(unet, scheduler, _space_to_depth(folder / "denoiser.json")).eval()


def _space_to_depth(path: Path) -> int:
    """Read the factor that `save_pretrained` wrote; 1 for a folder of diffusers, which has no such file."""
    if not path.is_file():
        return 1
    try:
        factor = json.loads(path.read_text(encoding="utf-8"))["space_to_depth"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)})") from error
    if not isinstance(factor, int) or factor < 1:
        raise InputError(f"{path}: space_to_depth is {factor!r}, need an integer of at least 1")
    return factor
