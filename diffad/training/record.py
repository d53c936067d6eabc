"""The manifest of a finished training."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from accelerate import Accelerator

from certify.files import write_json
from diffad.manifest import Described, build_manifest, describe_data
from diffad.places import remember_places
from diffad.training.options import TrainingOptions, as_json


def write_manifest(
    command: str,
    config: TrainingOptions,
    accelerator: Accelerator,
    *,
    data: Described,
    detectors: Mapping[str, str],
    started: datetime,
) -> None:
    """Write `manifest.json` into the output folder; called by the main process alone.

    Args:
        command: name of the training, for example `diffad.cobra.train`.
        config: its options.
        accelerator: what it ran on.
        data: what it was trained on.
        detectors: fingerprint of what was trained, by name.
        started: from `diffad.manifest.now`, when it began.
    """
    manifest = build_manifest(
        command,
        as_json(asdict(config)),
        data=describe_data(data),
        detectors=detectors,
        seeds={"training": config.seed},
        started=started,
        device=str(accelerator.device),
        world_size=accelerator.num_processes,
        argv=sys.argv,
    )
    write_json(Path(config.output_dir) / "manifest.json", manifest)
    remember_places(manifest, data.options)
