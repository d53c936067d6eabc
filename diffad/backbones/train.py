"""Train a backbone: accelerate launch -m diffad.backbones.train --config configs/backbones/cifar10_fgsm_rs.yaml

A classifier is trained on labelled images, plainly or against an attacker, with the loop of `diffad.training`; what it
computes in front of its head is the backbone. The folder holds the backbone, `log.jsonl` (loss), `accuracy.jsonl`
(clean and PGD accuracy on held-out images while training), `manifest.json` and the checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from certify.checks import InputError
from certify.console import run as run_command
from certify.console import say
from diffad.backbones.accuracy import accuracy
from diffad.backbones.architectures import build_network
from diffad.backbones.backbone import Backbone, load_backbone
from diffad.backbones.classifier import Classifier
from diffad.backbones.config import MEASURING, BackboneConfig, parse_arguments
from diffad.backbones.labelled import LabelledSplit, load_labelled
from diffad.backbones.losses import training_loss
from diffad.manifest import now, without_paths
from diffad.training import WEIGHTS, Training, key, run, start_run, write_manifest
from diffad.training.log import StepLog

ACCURACY = "accuracy.jsonl"


def train(config: BackboneConfig) -> Path:
    """Train as `config` says, or go on from its newest checkpoint, and return the folder of the backbone.

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
            split = load_labelled(
                config.data,
                exclude=config.exclude_classes,
                resolution=config.resolution,
                channels=config.in_channels,
                limit=config.limit,
                seed=config.seed,
            )
        helper = load_helper(config, split)
        classifier = build_classifier(config, split)
        identity = training_identity(config, split, helper)
        training = Training.prepare(
            accelerator,
            classifier,
            (split.train.images, split.train.labels),
            config,
            config=identity,
            checkpoint=checkpoint,
        )
        if helper is not None:
            helper.to(accelerator.device)
        watch = accuracy_log(config, split, training.step) if accelerator.is_main_process else None
        run(training, training_loss(classifier, config, helper), config=identity, draw_images=watch)
        if accelerator.is_main_process:
            averaged = training.averaged()
            measured = accuracy(
                averaged,
                split.test.first(config.evaluation_images),
                config.threat,
                steps=config.evaluation_attack_steps,
                seed=config.seed,
            )
            backbone = finished(config, split, averaged, measured, training.step)
            backbone.save_pretrained(config.output_dir)
            write_manifest(
                "diffad.backbones.train",
                config,
                accelerator,
                data=split,
                detectors={"backbone": backbone.fingerprint()},
                started=started,
            )
            say(f"test accuracy {measured['clean']:.3f}, under PGD {measured['pgd']:.3f} ({config.eps})")
        accelerator.wait_for_everyone()
    finally:
        accelerator.end_training()
    return Path(config.output_dir)


def training_identity(
    config: BackboneConfig, split: LabelledSplit, helper: Backbone | None
) -> dict[str, Any]:
    """What a checkpoint must agree on with the run that resumes from it: options, data, helper."""
    options = {name: value for name, value in asdict(config).items() if name not in MEASURING}
    helping = None if helper is None else helper.fingerprint()
    return {**options, "helper": helping, "data_fingerprint": split.fingerprint()}


def load_helper(config: BackboneConfig, split: LabelledSplit) -> Backbone | None:
    """Return the helper of method hat, checked for the classes of the data; None for other methods."""
    if config.helper is None:
        return None
    helper = load_backbone(config.helper)
    theirs = helper.facts.get("classes")
    if theirs != list(split.classes):
        raise InputError(f"helper: tells {theirs} apart, need the classes of the data, {list(split.classes)}")
    return helper


def network_arguments(config: BackboneConfig, split: LabelledSplit) -> dict[str, Any]:
    """Return the arguments of the ResNet as JSON values."""
    return {
        "width": config.width,
        "blocks": list(config.blocks),
        "stem": config.stem,
        "classes": len(split.classes),
        "in_channels": split.channels,
    }


def build_classifier(config: BackboneConfig, split: LabelledSplit) -> Classifier:
    """Make the classifier with initial weights that depend on the seed alone; it normalises by the training images."""
    mean, std = channel_statistics(split.train.images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, WEIGHTS))
        network = build_network("resnet", network_arguments(config, split))
    return Classifier(network, mean, std)


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel to four digits, so that they are the same everywhere."""
    mean = images.mean(dim=(0, 2, 3), dtype=torch.float64)
    square = images.square().mean(dim=(0, 2, 3), dtype=torch.float64)
    std = (square - mean.square()).clamp_min(0.0).sqrt()
    return [round(float(m), 4) for m in mean], [max(round(float(s), 4), 1e-3) for s in std]


def accuracy_log(
    config: BackboneConfig, split: LabelledSplit, resumed_at: int
) -> Callable[[Classifier, int], None]:
    """Return what measures the averaged classifier on held-out images and appends to `accuracy.jsonl`."""
    log = StepLog(Path(config.output_dir) / ACCURACY, resumed_at=resumed_at)
    part = split.held_out.first(config.evaluation_images)

    def watch(averaged: Classifier, step: int) -> None:
        steps = config.evaluation_attack_steps
        measured = accuracy(averaged, part, config.threat, steps=steps, seed=config.seed)
        guard = {"pgd_batches": int(averaged.guard.strong), "alarms": int(averaged.guard.alarms)}
        log.write({"step": step, **measured, **guard})

    return watch


def finished(
    config: BackboneConfig,
    split: LabelledSplit,
    classifier: Classifier,
    measured: dict[str, float],
    steps: int,
) -> Backbone:
    """Return the backbone in a trained classifier, with what is known about its training."""
    robust = {"norm": config.norm, "eps": config.eps} if config.method != "standard" else {}
    facts = {
        "training": {"method": config.method, **robust, "steps": steps, "seed": config.seed},
        "data": without_paths(split.name),
        "data_fingerprint": split.fingerprint(),
        "classes": list(split.classes),
        "excluded": list(config.exclude_classes),
        "test_accuracy": measured["clean"],
        "test_accuracy_under_pgd": {
            "accuracy": measured["pgd"],
            "norm": config.norm,
            "eps": config.eps,
            "steps": config.evaluation_attack_steps,
            "images": min(config.evaluation_images, len(split.test)),
        },
    }
    return Backbone(
        classifier.network,
        arch="resnet",
        arguments=network_arguments(config, split),
        mean=[round(value, 4) for value in classifier.mean.flatten().tolist()],
        std=[round(value, 4) for value in classifier.std.flatten().tolist()],
        resolution=split.resolution,
        facts=facts,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""

    def command() -> Any:
        say(f"done: {train(parse_arguments(argv))}")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
