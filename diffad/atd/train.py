"""Train ATD: accelerate launch -m diffad.atd.train --config configs/atd/digits.yaml --backbone FOLDER

Discriminator and generator learn on the features of a frozen backbone, against an attacker of the real images. The
folder holds the detector, `log.jsonl` (both players' losses, gradient norms and rates, mean logits, the share of
gradients that were zero while crafting), `validation.jsonl` (AUROC of each candidate, clean and attacked),
`selection.json`, `manifest.json` (under protocol ood with the probes of resampling and channel order) and the
checkpoints.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certify.checks import InputError
from certify.console import progress, say
from certify.console import run as run_command
from diffad.atd.candidates import Candidates, Validation
from diffad.atd.config import AFTER_TRAINING, AtdConfig, parse_arguments
from diffad.atd.feature_players import FeatureDiscriminator, FeatureGenerator
from diffad.atd.finish import finish
from diffad.atd.network import Players
from diffad.atd.open_set import check_apart, check_untested, native_of
from diffad.atd.optimizer import players_optimizer, watch_gradients
from diffad.atd.pairs import PairedBatches
from diffad.atd.pixel_players import PixelDiscriminator, PixelGenerator
from diffad.atd.step import AtdStep
from diffad.backbones import Backbone, load_backbone
from diffad.data import DataSplit
from diffad.data.load import Request
from diffad.manifest import now
from diffad.sources import with_ood_probes
from diffad.training import WEIGHTS, Training, key, run, start_run, write_manifest
from diffad.training.data import read_split

_BATCH = 256  # images of a pass that computes features ahead


def train(config: AtdConfig) -> Path:
    """Train as `config` says, or go on from its newest checkpoint, and return the folder of the detector.

    Raises:
        InputError: something about the configuration, the data, the backbone or the checkpoint cannot be used.
        DivergedError: a loss stopped being finite; the checkpoints before stay.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    started = now()
    backbone = load_extractor(config)
    accelerator, checkpoint = start_run(config, asdict(config))
    try:
        with accelerator.main_process_first():  # the first process downloads, the others find it there
            split, opened, validation = load_sets(config)
        if backbone is not None:
            backbone.to(accelerator.device)
        rows, open_rows = split.train.images, opened
        cached = backbone is not None and config.adversary is None
        if cached and backbone is not None:
            rows, open_rows = features_of(rows, backbone), features_of(opened, backbone)
        players = build_players(config, split, backbone)
        identity = training_identity(config, split, opened, backbone)
        optimizer = players_optimizer(players, config, config.generator_learning_rate)
        training = Training.prepare(
            accelerator, players, (rows,), config, config=identity, checkpoint=checkpoint, optimizer=optimizer
        )
        training.loader = paired_batches(config, training, open_rows)
        step = AtdStep(
            players,
            None if cached else backbone,
            alpha=config.alpha,
            adversary=config.adversary,
            attack_generated=config.attack_generated,
        )
        watch_gradients(training.optimizer.optimizer, step.saw)
        candidates = None
        if accelerator.is_main_process:
            shape = (split.channels, split.resolution, split.resolution)
            candidates = Candidates(config, validation, backbone, shape, resumed_at=training.step)
            every, at = config.save_images_steps, training.step
            # a run that was stopped has written the checkpoint of this step, and perhaps not measured it
            if every and 0 < at < training.total_steps and at % every == 0 and not candidates.measured_at(at):
                candidates.add(training.averaged(), at)
        watch = None if candidates is None else candidates.add
        run(training, step, config=identity, draw_images=watch, figures=step.figures)
        if candidates is not None:
            detector = finish(config, training.averaged(), candidates, split, training.step)
            write_manifest(
                "diffad.atd.train",
                config,
                accelerator,
                data=with_ood_probes(detector, split, str(accelerator.device)),
                detectors={detector.name: detector.fingerprint()},
                started=started,
            )
        accelerator.wait_for_everyone()
    finally:
        accelerator.end_training()
    return Path(config.output_dir)


def load_extractor(config: AtdConfig) -> Backbone | None:
    """Return the frozen backbone; None in pixel space."""
    if config.space == "pixel":
        return None
    if config.backbone is None:
        raise InputError(
            "--backbone: atd judges the features of a trained network; give its folder (accelerate launch -m "
            "diffad.backbones.train, diffad backbones convert), or --space pixel"
        )
    return load_backbone(config.backbone)


def load_sets(config: AtdConfig) -> tuple[DataSplit, Tensor, Validation]:
    """Return the in-distribution data, the open set to train against, and what candidates are compared on."""
    check_untested((*config.open_data, *config.validation_open_data), config.outliers, config.data)
    split = read_split(config)
    request = Request(config.data, resolution=split.resolution, channels=split.channels, seed=config.seed)
    native = native_of(request)
    opened = config.trained_on.images(split.train.images, config.open_images or len(split.train), native)
    normals = split.validation.normals().images[: config.validation_images]
    others = config.chosen_on.images(normals, config.validation_images, native)
    check_apart(split, opened, others)
    return split, opened, Validation(normals, others)


def features_of(images: Tensor, backbone: Backbone) -> Tensor:
    """Return the features (n, dim) of images, on the CPU: without an attacker they are the same at every step."""
    device = next(backbone.parameters()).device
    batches = progress(torch.split(images, _BATCH), "features", -(-len(images) // _BATCH))
    with torch.no_grad():
        return torch.cat([backbone.features(batch.to(device)).cpu() for batch in batches])


def paired_batches(config: AtdConfig, training: Training[Players], open_rows: Tensor) -> PairedBatches:
    """Return the batches still to do of this process, with rows of the open set unless it has no weight."""
    accelerator, times = training.accelerator, config.gradient_accumulation_steps
    return PairedBatches(
        training.loader,
        None if config.alpha == 0.0 else open_rows.to(accelerator.device),
        batch_size=config.train_batch_size,
        first=training.step * times,
        last=max(training.step, training.total_steps) * times,
        seed=config.seed,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )


def training_identity(
    config: AtdConfig, split: DataSplit, opened: Tensor, backbone: Backbone | None
) -> dict[str, Any]:
    """What a checkpoint must agree on with the run that resumes from it: options, data, open set, backbone."""
    options = {name: value for name, value in asdict(config).items() if name not in AFTER_TRAINING}
    return {
        **options,
        "backbone": None if backbone is None else backbone.fingerprint(),
        "data_fingerprint": split.fingerprint(),
        "open_set": hashlib.sha256(opened.numpy().tobytes()).hexdigest(),
    }


def build_players(config: AtdConfig, split: DataSplit, backbone: Backbone | None) -> Players:
    """Make both networks with initial weights that depend on the seed alone."""
    has_generator = config.generator != "none"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, WEIGHTS))
        if backbone is not None:
            discriminator = FeatureDiscriminator(backbone.dim, config.hidden)
            made = FeatureGenerator(backbone.dim, config.generator_hidden, config.latent)
            return players_of(config, discriminator, made if has_generator else None)
        size = (split.channels, split.resolution, config.hidden)
        judge = PixelDiscriminator(*size)
        return players_of(config, judge, PixelGenerator(*size, config.latent) if has_generator else None)


def players_of(
    config: AtdConfig,
    discriminator: FeatureDiscriminator | PixelDiscriminator,
    generator: FeatureGenerator | PixelGenerator | None,
) -> Players:
    """Return the players under the options of the configuration."""
    return Players(
        discriminator,
        generator,
        train_generator=config.generator == "trained",
        statistics=config.batch_statistics,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""

    def command() -> Any:
        say(f"done: {train(parse_arguments(argv))}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
