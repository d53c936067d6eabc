"""Train the network of the diffusion detector: accelerate launch train_ddpm.py --config configs/digits.yaml

The model sees u = 2 x - 1 for images x in [0, 1]. A step draws timesteps t uniformly from the trained range
and noise e, and takes the mean squared error between the prediction from sqrt(abar_t) u + sqrt(1 - abar_t) e
and its target (Ho et al. 2020, eq. 14; Salimans and Ho 2022 for the sample and v predictions).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from certify.console import run as run_command
from certify.console import say
from diffad.data import DataSplit
from diffad.diffusion.config import AFTER_TRAINING, TrainConfig, parse_arguments
from diffad.diffusion.finish import finish
from diffad.diffusion.grids import SHOWN_SIGMAS, draw_grids
from diffad.diffusion.model import Denoiser
from diffad.diffusion.schedule import sigmas_of_schedule, timestep_for_sigma
from diffad.manifest import now
from diffad.training import WEIGHTS, BatchLoss, Training, key, run, start_run, write_manifest
from diffad.training.augment import augment
from diffad.training.data import read_split


def train(config: TrainConfig) -> Path:
    """Train as `config` says, or go on from its newest checkpoint, and return the folder of the result.

    Raises:
        InputError: something about the configuration, the data or the checkpoint cannot be used.
        DivergedError: the loss stopped being finite; the checkpoints before stay.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    started = now()
    options = asdict(config)
    accelerator, checkpoint = start_run(config, options)
    try:
        with accelerator.main_process_first():  # the first process downloads, the others find it there
            split = read_split(config)
        denoiser = build_denoiser(config, split.train.images)
        identity = training_identity(config, split)
        training = Training.prepare(
            accelerator, denoiser, (split.train.images,), config, config=identity, checkpoint=checkpoint
        )

        def draw(averaged: Denoiser, step: int) -> None:
            draw_grids_of_run(config, averaged, split, step)

        run(training, denoising_loss(denoiser, config), config=identity, draw_images=draw)
        if accelerator.is_main_process:
            averaged = training.averaged()
            draw(averaged, training.step)
            detector = finish(config, averaged, split)
            write_manifest(
                "train_ddpm",
                config,
                accelerator,
                data=split,
                detectors={detector.name: detector.fingerprint()},
                started=started,
            )
        accelerator.wait_for_everyone()
    finally:
        accelerator.end_training()
    return Path(config.output_dir)


def training_identity(config: TrainConfig, split: DataSplit) -> dict[str, Any]:
    """What a checkpoint must agree on with the run that resumes from it: the options of the training, the data."""
    options = {name: value for name, value in asdict(config).items() if name not in AFTER_TRAINING}
    return {**options, "data_fingerprint": split.fingerprint()}


def draw_grids_of_run(config: TrainConfig, denoiser: Denoiser, split: DataSplit, step: int) -> None:
    """Draw held-out normals and samples into `grids/`, at the noise levels that were trained."""
    _, last = trained_timesteps(denoiser, config)
    most = sigmas_of_schedule(denoiser.alphas_cumprod)[last]
    draw_grids(
        denoiser,
        split.calibration.images[:8],
        Path(config.output_dir) / "grids",
        step=step,
        sigmas=[sigma for sigma in SHOWN_SIGMAS if sigma <= most],
        with_samples=config.max_sigma is None,  # sampling begins at the last timestep of the schedule
        seed=config.seed,
    )


def build_denoiser(config: TrainConfig, images: Float[Tensor, "n c h w"]) -> Denoiser:
    """Make the network with initial weights that depend on the seed alone."""
    _, channels, height, width = images.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, WEIGHTS))
        return Denoiser.build(
            (channels, height, width),
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            attention_levels=config.attention_levels,
            space_to_depth=config.space_to_depth,
            norm_num_groups=config.norm_num_groups,
            dropout=config.dropout,
            prediction_type=config.prediction_type,
            beta_schedule=config.ddpm_beta_schedule,
            num_train_timesteps=config.ddpm_num_steps,
        )


def trained_timesteps(denoiser: Denoiser, config: TrainConfig) -> tuple[int, int]:
    """First and last timestep of the range of noise to train, both included."""
    abar = denoiser.alphas_cumprod
    first = 0 if config.min_sigma is None else timestep_for_sigma(abar, config.min_sigma)
    last = len(abar) - 1 if config.max_sigma is None else timestep_for_sigma(abar, config.max_sigma)
    return first, last


def loss_weights(denoiser: Denoiser, config: TrainConfig) -> Float[Tensor, " steps"]:
    """Weight of each timestep, of mean 1 over the trained range.

    `clean` counts the error of the clean image that a prediction implies: by the closed forms of
    `Denoiser.clean_from_prediction` that is the squared error of the prediction times (1 - abar) / abar for
    the noise, times 1 - abar for v, and itself for the sample.
    """
    abar = denoiser.alphas_cumprod.double()
    if config.loss_weighting == "prediction" or config.prediction_type == "sample":
        return torch.ones_like(abar, dtype=torch.float32)
    weights = (1.0 - abar) / abar if config.prediction_type == "epsilon" else 1.0 - abar
    first, last = trained_timesteps(denoiser, config)
    return (weights / weights[first : last + 1].mean()).float()


def denoising_loss(denoiser: Denoiser, config: TrainConfig) -> BatchLoss:
    """Return the loss of a batch of images in [0, 1]; `denoiser` is the bare network, on its device."""
    first, last = trained_timesteps(denoiser, config)
    weights = loss_weights(denoiser, config)

    def batch_loss(model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        (images,) = batch
        u_0 = 2.0 * augment(images, config, generator) - 1.0
        noise = torch.randn(u_0.shape, generator=generator, device=u_0.device)
        timesteps = torch.randint(first, last + 1, (len(u_0),), generator=generator, device=u_0.device)
        prediction = model(denoiser.add_noise(u_0, noise, timesteps), timesteps)
        target = denoiser.training_target(u_0, noise, timesteps)
        error = F.mse_loss(prediction.float(), target, reduction="none").mean(dim=(1, 2, 3))
        return (weights[timesteps] * error).mean()

    return batch_loss


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""

    def command() -> Any:
        folder = train(parse_arguments(argv))
        say(f"done: {folder}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
