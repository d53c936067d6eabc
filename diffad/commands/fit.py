"""`diffad fit`: fit a network-free detector on the normal images of a data set and save its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from certify import console
from certify.checks import InputError
from certify.files import write_json
from diffad.baselines.choose import fit_baseline
from diffad.config import parse_config
from diffad.data import DataSplit, load_data
from diffad.diffusion.generate import generate
from diffad.manifest import build_manifest, describe_data, now
from diffad.sources import DataOptions, default_class, load_detector_and_data, parse_radii


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Fit a network-free detector; pca and patch_nn choose their option on validation data.

    With a generator it is fitted on samples of a diffusion model beside the normal images: what the model learned
    improves the score, and the Lipschitz constant stays.
    """

    detector: str = "pixel_nn"
    """pixel_mean, pca, pixel_nn, patch_nn or closed_form."""
    data: str | None = None
    """None: digits, or what the generator was trained on."""
    normal_class: str | None = None
    resolution: int | None = None
    radii: str = "0,0.1,0.25"
    """L2 radii whose certified AUROC on validation data decides between options."""
    generator: str | None = None
    """Folder of a trained diffusion detector; its training split is used."""
    generated: int = 2000
    """Images it adds to the normal ones."""
    generator_sigmas: str = "4,2,1,0.5,0.25,0.12"
    """Noise of its steps, falling, [0, 1] pixel units; within what it was trained on."""
    seed: int = 0
    """Of the fit and the samples and, without a generator, of the split."""
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
    split, added = sources(config)
    detector = fit_baseline(
        config.detector,
        torch.cat([split.train.images, added]),
        split.validation,
        parse_radii(config.radii),
        seed=config.seed,
    )
    if len(added):
        detector.fit_info |= {"images": len(split.train), "generated": len(added)}
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


def sources(config: FitConfig) -> tuple[DataSplit, Tensor]:
    """Return the data and the images (count, c, h, w) that the generator adds, none without one."""
    if config.generator is None:
        data = config.data or "digits"
        normal = default_class(data, config.normal_class)
        split = load_data(data, normal_class=normal, resolution=config.resolution, seed=config.seed)
        return split, split.train.images[:0]
    options = DataOptions(
        detector=config.generator,
        data=config.data,
        normal_class=config.normal_class,
        resolution=config.resolution,
    )
    generator, split = load_detector_and_data(options)
    if generator.name != "diffusion":
        raise InputError(
            f"--generator: {config.generator} holds a {generator.name}, need a diffusion detector"
        )
    levels = parse_radii(config.generator_sigmas, "--generator_sigmas")
    console.say(f"drawing {config.generated} images of {split.name} in {len(levels)} steps each")
    return split, generate(
        generator.reconstruct, split.train.images, config.generated, sigmas=levels, seed=config.seed
    )
