"""Train COBRA: accelerate launch -m diffad.cobra.train --config configs/cobra/digits.yaml

First the filter, where there is one: its classifier is trained and its mixture fitted, on the training images alone.
Then the network, while a second thread crafts the pseudo-anomalies of the next batches. The folder holds the detector,
the filter, `log.jsonl` (losses, rate, gradient norm, and of the pseudo-anomalies tries, acceptance and cap hits),
`validation.jsonl` (clean AUROC on held-out normals and synthetic defects), `manifest.json` and the checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from certify.checks import InputError
from certify.console import run as run_command
from certify.console import say
from diffad.backbones.architectures import build_network
from diffad.cobra.ahead import CraftedBatches
from diffad.cobra.classifier import ClassifierConfig, train_classifier
from diffad.cobra.config import AFTER_TRAINING, CobraConfig, parse_arguments
from diffad.cobra.crafting import PseudoAnomalies, check_held_out
from diffad.cobra.filter import NormalityFilter, cut_held_out, fit_filter, normals_digest
from diffad.cobra.finish import finish, network_arguments, validation_log
from diffad.cobra.losses import CONTRASTIVE
from diffad.cobra.network import CobraNetwork, Heads
from diffad.cobra.step import CobraStep
from diffad.data import DataSplit
from diffad.manifest import now
from diffad.training import WEIGHTS, Training, key, run, start_run, write_manifest
from diffad.training.data import read_split
from diffad.training.launch import start_accelerator
from diffad.training.optimizers import check_optimizer

FILTER = "filter"


def train(config: CobraConfig) -> Path:
    """Train as `config` says, or go on from its newest checkpoint, and return the folder of the detector.

    Raises:
        InputError: something about the configuration, the data, the filter or the checkpoint cannot be used.
        DivergedError: the loss stopped being finite; the checkpoints before stay.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    started = now()
    options = asdict(config)
    check_optimizer(config)  # before the filter takes its minutes
    split = load_split(config)
    normality = build_filter(config, split) if config.needs_filter else None
    accelerator, checkpoint = start_run(config, options)
    try:
        network = build_network_of(config, split)
        identity = training_identity(config, split, normality)
        training = Training.prepare(
            accelerator, network, (split.train.images,), config, config=identity, checkpoint=checkpoint
        )
        if config.head == "binary":
            training.loader = crafted_batches(config, training, split, normality)
        step = CobraStep(
            network,
            config.loss_weights,
            config.loss_options,
            adversary=config.adversary,
            rotations=config.head == "rotations",
            flip=config.random_flip,
        )
        watch = validation_log(config, split, training.step) if accelerator.is_main_process else None
        run(training, step, config=identity, draw_images=watch, figures=step.figures)
        if accelerator.is_main_process:
            detector = finish(config, training.averaged(), split, training.step)
            write_manifest(
                "diffad.cobra.train",
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


def load_split(config: CobraConfig) -> DataSplit:
    """Return the data; the first process downloads, the others find it there."""
    with start_accelerator().main_process_first():
        return read_split(config)


def build_filter(config: CobraConfig, split: DataSplit) -> NormalityFilter:
    """Return the filter of the configuration's folder, or train and fit one on the training images, which is saved.

    A finished classifier is not trained again: a resumed run fits the same mixture on it.
    """
    if config.filter is not None:
        ready = NormalityFilter.from_pretrained(config.filter)
        if ready.normals != normals_digest(split.train.images):
            raise InputError(
                f"filter: {config.filter} was fitted on other images than the {len(split.train)} normals here; "
                "leave --filter out, or give that of a run on the same data"
            )
        return ready
    folder = Path(config.output_dir) / FILTER
    images, held_out = cut_held_out(split.train.images, config.filter_held_out, config.seed)
    if config.craft.level is not None:
        check_held_out(len(held_out), config.craft.level)
    options = ClassifierConfig(
        output_dir=str(folder / "training"),
        overwrite_output_dir=config.overwrite_output_dir,
        seed=config.seed,
        transforms=config.craft.transforms,
        width=config.filter_width,
        blocks=config.filter_blocks,
        stem=config.stem,
        max_train_steps=config.filter_steps,
        lr_warmup_steps=min(20, config.filter_steps - 1),
        mixed_precision=config.mixed_precision,
    )
    classifier = train_classifier(images, options, held_out=held_out)
    normality = fit_filter(
        images,
        classifier,
        held_out=held_out,
        components=config.filter_components,
        pca=config.filter_pca,
        seed=config.seed,
    )
    if start_accelerator().is_main_process:
        normality.save_pretrained(folder)
    return normality


def crafted_batches(
    config: CobraConfig, training: Training[CobraNetwork], split: DataSplit, normality: NormalityFilter | None
) -> CraftedBatches:
    """Return the batches still to do of this process, with pseudo-anomalies."""
    accelerator = training.accelerator
    if normality is not None:
        normality = normality.to(accelerator.device)
    return CraftedBatches(
        training.loader,
        PseudoAnomalies(config.craft, normality),
        pool=split.train.images.to(accelerator.device),
        seed=config.seed,
        first=training.step * config.gradient_accumulation_steps,
        rank=accelerator.process_index,
        processes=accelerator.num_processes,
    )


def training_identity(
    config: CobraConfig, split: DataSplit, normality: NormalityFilter | None
) -> dict[str, Any]:
    """What a checkpoint must agree on with the run that resumes from it: options, data, a filter that was given."""
    options = {name: value for name, value in asdict(config).items() if name not in AFTER_TRAINING}
    given = normality.fingerprint() if normality is not None and config.filter is not None else None
    return {**options, "filter": given, "data_fingerprint": split.fingerprint()}


def build_network_of(config: CobraConfig, split: DataSplit) -> CobraNetwork:
    """Make the network with initial weights that depend on the seed alone; a head that no loss moves is frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, WEIGHTS))
        encoder = build_network("resnet", network_arguments(config, split.channels))
        heads = Heads(encoder.dim, config.embedding_size, 4 if config.head == "rotations" else 2)
    heads.projection.requires_grad_(bool(CONTRASTIVE & set(config.losses)))
    heads.classifier.requires_grad_("classification" in config.losses)
    return CobraNetwork(encoder, heads)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""

    def command() -> Any:
        say(f"done: {train(parse_arguments(argv))}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
