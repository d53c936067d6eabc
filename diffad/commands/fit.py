"""`diffad fit`: fit a detector that needs no training of its own on normal images and save its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict

from certify import console
from certify.checks import InputError
from certify.files import write_json
from diffad.commands.fit_options import OWNERS, FitConfig, given_options
from diffad.commands.fit_ways import FITS, fitted
from diffad.config import parse_config
from diffad.detector import allowed_quantile
from diffad.manifest import build_manifest, describe_data, now
from diffad.places import remember_places
from diffad.precision import exact_float32
from diffad.registry import BARE, is_name
from diffad.sources import with_ood_probes
from diffad.subject import folder_name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        fit(
            parse_config(FitConfig, argv, prog="diffad fit", description=str(FitConfig.__doc__)),
            list(sys.argv[2:] if argv is None else argv),
        )

    return console.run(command)


@exact_float32()
def fit(config: FitConfig, argv: Sequence[str]) -> None:
    """Fit, calibrate and save."""
    if config.detector == "diffusion":
        raise InputError("--detector: a diffusion detector is trained by `accelerate launch train_ddpm.py`")
    if config.detector == "atd":
        raise InputError(
            "--detector: atd is trained, by accelerate launch -m diffad.atd.train --config configs/atd/digits.yaml"
        )
    if not is_name(config.detector):
        raise InputError(
            f"--detector: got {config.detector!r}, allowed are {', '.join(BARE)}; generated_nn with --generator, cobra "
            f"with --network, {', '.join(OWNERS['backbone'])} with --backbone; a name like module:function or "
            "sklearn:IsolationForest"
        )
    for option in given_options(config):
        if config.detector not in OWNERS[option]:
            raise InputError(
                f"--{option}: {config.detector} takes none; use --detector {' or '.join(OWNERS[option])}"
            )
    if config.device != "cpu" and config.detector not in OWNERS["backbone"]:
        raise InputError(
            f"--device: got {config.device}; {config.detector} is fitted on the CPU, only detectors with --backbone on "
            "others"
        )
    started = now()
    split, detector = FITS.get(config.detector, fitted)(config)
    detector.calibrate(split.calibration.images, quantile=allowed_quantile(len(split.calibration)))
    split = with_ood_probes(detector, split, config.device)
    folder = config.output_dir or f"runs/{folder_name(detector.row_name)}"
    detector.save_pretrained(folder)
    manifest = build_manifest(
        "diffad fit",
        asdict(config),
        data=describe_data(split),
        detectors={detector.row_name: detector.fingerprint()},
        seeds={"fit": config.seed},
        started=started,
        argv=["diffad", "fit", *argv],
    )
    write_json(f"{folder}/manifest.json", manifest)
    remember_places(manifest, split.options)
    print(folder)
