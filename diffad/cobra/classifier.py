"""The classifier that tells hard transforms apart; its features are what the filter looks at (COBRA, sec. 3.1).

Trained on transformed normal images with the loop of `diffad.training`; kept as a backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from certify.checks import InputError, check_choice, check_images
from certify.console import say
from diffad import folder
from diffad.backbones import Backbone, load_backbone
from diffad.backbones.architectures import build_network
from diffad.backbones.classifier import Classifier
from diffad.backbones.resnet import Stem
from diffad.backbones.train import channel_statistics
from diffad.data.transforms import HARD_TRANSFORMS, TRANSFORMS, apply_each
from diffad.training import WEIGHTS, Training, TrainingOptions, key, run, start_run
from diffad.training.log import StepLog

ACCURACY = "accuracy.jsonl"
_HELD_OUT = 11  # a purpose, the first number of a key
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(TrainingOptions):
    """Train the classifier of the filter. The paper trains a ResNet-18 for 100 epochs; the defaults suit a CPU."""

    output_dir: str = "runs/cobra/classifier"
    """Folder of the checkpoints, the logs and the classifier."""
    transforms: tuple[str, ...] = tuple(HARD_TRANSFORMS)
    """Names of `diffad.data.transforms.TRANSFORMS`, the classes."""
    width: int = 16
    """Channels of the first stage of the ResNet; 64 is ResNet-18."""
    blocks: tuple[int, ...] = (1, 1, 1)
    """Basic blocks of each stage; (2, 2, 2, 2) is ResNet-18."""
    stem: Stem = "small"
    """small: full size, for images of about 32 pixels; imagenet: a quarter of the size."""
    max_train_steps: int | None = 300
    learning_rate: float = 2e-3
    lr_warmup_steps: int = 20
    adam_beta1: float = 0.9
    use_ema: bool = False
    checkpointing_steps: int = 100
    evaluation_images: int = 512
    """Held-out images, at most, that accuracy is measured on."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        for name in self.transforms:
            check_choice(name, tuple(TRANSFORMS), "transforms")
        if len(self.transforms) < 2 or len(set(self.transforms)) < len(self.transforms):
            raise InputError(f"transforms: got {self.transforms}; need at least 2, each once")
        if self.evaluation_images < 1:
            raise InputError(f"evaluation_images: got {self.evaluation_images}, need at least 1")


def train_classifier(
    images: Float[Tensor, "n c h w"], config: ClassifierConfig, *, held_out: Float[Tensor, "m c h w"]
) -> Backbone:
    """Train on transformed `images`, normals in [0, 1], or go on from the newest checkpoint; write and return it.

    It comes back on the CPU, the same in every process; its facts hold the accuracy on `held_out` under each transform.
    Trains with accelerate, which starts anew each time: call this before another training starts its run, not inside.

    Raises:
        InputError: something about images, configuration or checkpoint cannot be used.
        DivergedError: the loss stopped being finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    check_images(images)
    check_images(held_out, name="held_out")
    images, held_out = images.float().cpu(), held_out.float().cpu()[: config.evaluation_images]
    identity = {
        **{name: value for name, value in asdict(config).items() if name != "evaluation_images"},
        "data_fingerprint": folder.fingerprint({}, {"images": images}),
    }
    accelerator, checkpoint = start_run(config, asdict(config))
    try:
        training = Training.prepare(
            accelerator,
            build_classifier(config, images),
            (images,),
            config,
            config=identity,
            checkpoint=checkpoint,
        )
        watch = accuracy_log(config, held_out, training.step) if accelerator.is_main_process else None
        run(training, batch_loss(config.transforms), config=identity, draw_images=watch)
        if accelerator.is_main_process:
            backbone = finished(config, images, training.averaged(), held_out)
            backbone.save_pretrained(config.output_dir)
            say(f"transforms told apart: {backbone.facts['accuracy']:.3f} of held-out images")
        accelerator.wait_for_everyone()
    finally:
        # not `end_training`, which parts the processes for good: the training that wants the filter follows
        for tracker in accelerator.trackers:
            tracker.finish()
    # batch statistics differ between processes: all take those of the first one
    return load_backbone(config.output_dir)


def batch_loss(
    transforms: tuple[str, ...],
) -> Callable[[nn.Module, tuple[Tensor, ...], torch.Generator], Tensor]:
    """Return the loss of a batch: cross-entropy of which transform each image was given."""

    def loss(model: nn.Module, batch: tuple[Tensor, ...], generator: torch.Generator) -> Tensor:
        images = batch[0]
        size, device = (len(images),), images.device
        which = torch.randint(len(transforms), size, generator=generator, device=device)
        seeds = torch.randint(2**62, size, generator=generator, device=device)
        names = [transforms[number] for number in which.tolist()]
        changed = apply_each(names, images, seeds=seeds, partners=images.roll(1, 0))
        return F.cross_entropy(model(changed), which)

    return loss


def build_classifier(config: ClassifierConfig, images: Tensor) -> Classifier:
    """Return the classifier with initial weights that depend on the seed alone; it normalises by the images."""
    mean, std = channel_statistics(images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(config.seed, WEIGHTS))
        network = build_network("resnet", network_arguments(config, images))
    return Classifier(network, mean, std)


def network_arguments(config: ClassifierConfig, images: Tensor) -> dict[str, Any]:
    """Return the arguments of the ResNet as JSON values."""
    return {
        "width": config.width,
        "blocks": list(config.blocks),
        "stem": config.stem,
        "classes": len(config.transforms),
        "in_channels": int(images.shape[1]),
    }


@torch.no_grad()
def accuracies(
    classifier: nn.Module, images: Tensor, transforms: tuple[str, ...], seed: int
) -> dict[str, float]:
    """Return the share of images told right under each transform; the same draws at every call."""
    device = next(classifier.parameters()).device
    seeds = [key(seed, _HELD_OUT, number) for number in range(len(images))]
    found = {}
    for number, name in enumerate(transforms):
        changed = apply_each([name] * len(images), images, seeds=seeds, partners=images.roll(1, 0))
        batches = torch.split(changed.to(device), _BATCH)
        told = torch.cat([classifier(batch).argmax(1) for batch in batches])
        found[name] = float((told == number).float().mean())
    return found


def accuracy_log(
    config: ClassifierConfig, held_out: Tensor, resumed_at: int
) -> Callable[[Classifier, int], None]:
    """Return what measures the accuracy every `save_images_steps` and appends to accuracy.jsonl."""
    log = StepLog(Path(config.output_dir) / ACCURACY, resumed_at=resumed_at)

    def watch(averaged: Classifier, step: int) -> None:
        found = accuracies(averaged, held_out, config.transforms, config.seed)
        log.write({"step": step, "accuracy": sum(found.values()) / len(found), **found})

    return watch


def finished(config: ClassifierConfig, images: Tensor, classifier: Classifier, held_out: Tensor) -> Backbone:
    """Return the classifier as a backbone, with its accuracy on held-out images."""
    found = accuracies(classifier, held_out, config.transforms, config.seed)
    return Backbone(
        classifier.network,
        arch="resnet",
        arguments=network_arguments(config, images),
        mean=[round(value, 4) for value in classifier.mean.flatten().tolist()],
        std=[round(value, 4) for value in classifier.std.flatten().tolist()],
        resolution=int(images.shape[-1]),
        facts={
            "transforms": list(config.transforms),
            "accuracy": round(sum(found.values()) / len(found), 4),
            "accuracy_by_transform": {name: round(value, 4) for name, value in found.items()},
            "accuracy_images": len(held_out),
            "seed": config.seed,
        },
    )
