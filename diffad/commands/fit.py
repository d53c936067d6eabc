"""`diffad fit`: fit a network-free detector on the normal images of a data set and save its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from certify import console
from certify.checks import InputError
from certify.files import write_json
from diffad.baselines.choose import fit_baseline
from diffad.config import parse_config
from diffad.data import load_data
from diffad.manifest import build_manifest, describe_data, now
from diffad.sources import default_class, parse_radii


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Fit a network-free detector; pca and patch_nn choose their option on validation data."""

    detector: str = "pixel_nn"
    """pixel_mean, pca, pixel_nn, patch_nn or closed_form."""
    data: str = "digits"
    normal_class: str | None = None
    resolution: int | None = None
    radii: str = "0,0.1,0.25"
    """L2 radii whose certified AUROC on validation data decides between options."""
    seed: int = 0
    output_dir: str | None = None
    """None: runs/DETECTOR."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        fit(
            parse_config(FitConfig, argv, prog="diffad fit", description=str(FitConfig.__doc__)),
            list(sys.argv[2:] if argv is None else argv),
        )

    return console.run(command)


def fit(config: FitConfig, argv: Sequence[str]) -> None:
    """Fit, calibrate and save."""
    if config.detector == "diffusion":
        raise InputError("--detector: a diffusion detector is trained by `accelerate launch train_ddpm.py`")
    started = now()
    normal = default_class(config.data, config.normal_class)
    split = load_data(config.data, normal_class=normal, resolution=config.resolution, seed=config.seed)
    detector = fit_baseline(
        config.detector, split.train.images, split.validation, parse_radii(config.radii), seed=config.seed
    )
    count = len(split.calibration)
    detector.calibrate(split.calibration.images, quantile=min(0.95, count / (count + 1)))
    folder = config.output_dir or f"runs/{config.detector}"
    detector.save_pretrained(folder)
    manifest = build_manifest(
        "diffad fit",
        asdict(config),
        data=describe_data(split),
        detectors={detector.name: detector.fingerprint()},
        seeds={"fit": config.seed},
        started=started,
        argv=["diffad", "fit", *argv],
    )
    write_json(f"{folder}/manifest.json", manifest)
    print(folder)
