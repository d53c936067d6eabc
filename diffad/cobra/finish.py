"""From a trained network to a detector: the bank of normals, the threshold, the folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

from certify.console import say
from diffad.backbones import Backbone
from diffad.cobra.config import CobraConfig
from diffad.cobra.detector import Cobra
from diffad.cobra.network import CobraNetwork
from diffad.data import DataSplit
from diffad.detector import allowed_quantile
from diffad.manifest import without_paths
from diffad.precision import exact_float32
from diffad.training.log import StepLog

VALIDATION = "validation.jsonl"


def network_arguments(config: CobraConfig, channels: int) -> dict[str, Any]:
    """Return the arguments of the encoder as JSON values."""
    return {
        "width": config.width,
        "blocks": list(config.blocks),
        "stem": config.stem,
        "classes": 0,
        "in_channels": channels,
    }


def fitted(config: CobraConfig, network: CobraNetwork, split: DataSplit, steps: int) -> Cobra:
    """Return the detector with the bank of all training images, on the device of the network."""
    attack = {} if config.adversary is None else {"norm": config.norm, "eps": config.eps}
    backbone = Backbone(
        network.encoder,
        arch="resnet",
        arguments=network_arguments(config, split.channels),
        mean=network.mean.flatten().tolist(),
        std=network.std.flatten().tolist(),
        resolution=split.resolution,
        facts={
            "training": {
                "method": "cobra",
                "losses": list(config.losses),
                **attack,
                "steps": steps,
                "seed": config.seed,
            },
            "data": without_paths(split.name),
            "data_fingerprint": split.fingerprint(),
        },
    )
    device = network.mean.device
    detector = Cobra.from_network(
        backbone.to(device), network.heads, score=config.score, embedding=config.embedding
    )
    return detector.to(device).fit(split.train.images, seed=config.seed)


@exact_float32()
def finish(config: CobraConfig, network: CobraNetwork, split: DataSplit, steps: int) -> Cobra:
    """Fit, calibrate and save the detector, in the float32 of the commands that will score with it."""
    detector = fitted(config, network, split, steps)
    images = split.calibration.images.to(network.mean.device)
    detector.calibrate(images, quantile=allowed_quantile(len(images)))
    detector.save_pretrained(config.output_dir)
    say(
        f"clean AUROC on validation (held-out normals, synthetic defects): {validation_auroc(detector, split):.3f}"
    )
    return detector


def validation_auroc(detector: Cobra, split: DataSplit) -> float:
    """Return the clean AUROC on held-out normals and synthetic defects, never on test images."""
    images = split.validation.images.to(next(detector.buffers()).device)
    return float(roc_auc_score(split.validation.labels, detector.score_array(images)))


def validation_log(
    config: CobraConfig, split: DataSplit, resumed_at: int
) -> Callable[[CobraNetwork, int], None]:
    """Return what measures the averaged network every `save_images_steps` and appends to validation.jsonl."""
    log = StepLog(Path(config.output_dir) / VALIDATION, resumed_at=resumed_at)

    def watch(averaged: CobraNetwork, step: int) -> None:
        with torch.no_grad():
            log.write({"step": step, "auroc": validation_auroc(fitted(config, averaged, split, step), split)})

    return watch
