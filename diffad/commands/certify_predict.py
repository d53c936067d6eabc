"""`certify predict FOLDER`: unlabelled images to normal, anomalous or abstain, with certified radius and price."""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from torch import Tensor

from certify import console
from certify.checks import InputError
from certify.files import write_json, write_text
from certify.noise import fresh_seed
from diffad.commands.certify_predict_show import as_text, csv_text
from diffad.config import parse_config
from diffad.data.reading import SUFFIXES, images_and_others, read_image
from diffad.detector import Detector
from diffad.manifest import build_manifest, now
from diffad.plan import Plan, default_smoothing, load_purifier, smooth
from diffad.precision import exact_float32
from diffad.prediction import Deployed, Prediction, Rule, check_budget, decide
from diffad.registry import is_name, load_detector
from diffad.results import ROWS
from diffad.sources import SourceOptions, at_sigma, load_sources, parse_radii, with_score_options

CALIBRATION_SEED = 0  # the threshold may be public: it is the one that `certify` of the same options reports


@dataclass(frozen=True, kw_only=True)
class PredictConfig(SourceOptions):
    """Decide unlabelled images: normal, anomalous or abstain, with a certified L2 radius.

    The threshold is calibrated on the held-out normals of the detector's own data, unless --threshold gives it. A
    decision, or its radius, is wrong with probability at most alpha an image, over the noise. Asking again
    for another verdict on the same image spends alpha again.
    """

    folder: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of images, or one image; any size, resized as the detector's own data."""
    smoothing: Literal["input", "denoise", "reference", "sure", "none"] | None = None
    """The way; None: `none` for a Lipschitz score, `reference` for a diffusion detector, else `input`."""
    sigma: float | None = None
    """Standard deviation of the smoothing noise, [0, 1] pixel units; None: the detector's own."""
    limit: int | None = None
    """Images, at most, the first by name; None: all."""
    purifier: str | None = None
    """Folder of a diffusion detector that denoises for another detector (way denoise)."""
    percentile: float = 0.5
    """Percentile of the noisy score that is the smoothed score."""
    threshold: float | None = None
    """Threshold of the smoothed score; None: calibrate it."""
    quantile: float = 0.9
    """The calibrated threshold is this quantile of the smoothed scores of held-out normals."""
    n: int = 1000
    """Noise draws an image, and a calibration image; 100 more guess the side first."""
    radius: str | None = None
    """Decide at this L2 radius (8/255 is understood), each image with as few draws as its decision needs."""
    max_samples: int = 10_000
    """With --radius: draws of an image, at most."""
    alpha: float = 0.001
    """Error probability of one image's decision and radius."""
    batch_size: int | None = None
    """Images a forward pass, a multiple of 50; None: 250, with --radius 50."""
    device: str = "cpu"
    seed: int | None = None
    """Key of the noise; None: a fresh one. A seed that the maker of an image may know voids its certificate."""
    format: Literal["table", "csv", "json"] = "table"
    json: bool = False
    """The same as --format json."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 1 also if an image could not be read."""

    def command() -> None:
        words = list(sys.argv[2:] if argv is None else argv)
        description = inspect.getdoc(PredictConfig) or ""
        config = parse_config(PredictConfig, words, prog="certify predict", description=description)
        if config.folder is None:
            raise SystemExit("error: FOLDER is missing; usage: certify predict FOLDER --detector ...")
        predict(config, config.folder, words)

    return console.run(command)


@exact_float32()
def predict(config: PredictConfig, folder: Path, argv: Sequence[str]) -> None:
    """Decide every image of a folder, print the results, and write them where `config` says."""
    started = now()
    paths = images_in(folder)[: config.limit]
    rule = rule_of(config)
    refuse_run_folder(config.output_dir)
    refuse_unreadable(paths)
    loaded = load(config)
    check_budget(loaded.smoothed, rule)
    console.say(
        f"deciding {len(paths)} images by {loaded.detector.name}, way {loaded.smoothed.smoothing}, "
        f"threshold {loaded.smoothed.threshold_:.6g} ({loaded.origin['text']})"
    )
    predictions, failures, digest = decide_all(paths, loaded, rule)
    kind = "json" if config.json else config.format
    print(as_text(kind, predictions, failures, loaded, rule))
    if config.output_dir is not None:
        write_text(config.output_dir / "predictions.csv", csv_text(predictions, failures))
        shape = loaded.detector.image_shape
        assert shape is not None
        data = {"name": f"images:{folder.resolve().name}", "fingerprint": digest, "images": len(paths)}
        manifest = build_manifest(
            "certify predict",
            {
                **{key: value for key, value in asdict(config).items() if key != "seed"},
                **{"smoothing": loaded.smoothed.smoothing, "sigma": loaded.smoothed.sigma},
                **{"threshold": loaded.smoothed.threshold_, "calibration": loaded.origin},
                "arguments": loaded.detector.config(),
                "purifier_fingerprint": loaded.purifier,
            },
            data={**data, "resolution": shape[1], "channels": shape[0]},
            detectors={loaded.detector.row_name: loaded.detector.fingerprint()},
            seeds={"predict": rule.seed, "calibrate": CALIBRATION_SEED},
            started=started,
            device=config.device,
            argv=["certify predict", *argv],
        )
        write_json(config.output_dir / "manifest.json", manifest)
        console.say(f"written: {config.output_dir}/predictions.csv")
    if failures:
        names = ", ".join(list(failures)[:5]) + (", ..." if len(failures) > 5 else "")
        raise InputError(f"{len(failures)} of {len(paths)} images could not be read: {names}")


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder by path, or the one file given; a folder without any is refused.

    Whatever else lies there is left out, and counted on stderr.
    """
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that holds images")
    images, others = images_and_others(folder)
    if others:
        names = ", ".join(path.name for path in others[:3]) + (", ..." if len(others) > 3 else "")
        console.say(
            f"skipped {len(others)} of {len(images) + len(others)} entries that are no image: {names}"
        )
    if not images:
        raise InputError(f"{folder}: holds no image; allowed are {', '.join(SUFFIXES)}")
    return images


def refuse_unreadable(paths: Sequence[Path]) -> None:
    """Refuse images of which none can be read, before minutes go into a threshold for them."""
    faults = []
    for path in paths:
        try:
            read_image(path)
            return
        except InputError as error:
            faults.append(str(error))
    others = f" (and {len(faults) - 1} more that cannot be read)" if len(faults) > 1 else ""
    raise InputError(f"{faults[0]}{others}")


def refuse_run_folder(folder: Path | None) -> None:
    """Refuse to write over the manifest of a certificate or an attack."""
    if folder is not None and (folder / ROWS).exists():
        raise InputError(f"--output_dir: {folder} holds a run; predictions need a folder of their own")


def rule_of(config: PredictConfig) -> Rule:
    """Return the rule of decision, with a fresh seed unless one is given."""
    radius = None
    if config.radius is not None:
        radii = parse_radii(config.radius, "--radius")
        if len(radii) != 1 or radii[0] == 0.0:
            raise InputError(f"--radius: got {config.radius!r}, need one radius above 0")
        radius = radii[0]
    seed = config.seed
    if seed is None:
        seed = fresh_seed()
    else:
        console.say(
            f"warning: --seed {seed} fixes the noise; whoever knows it when making an image voids its certificate"
        )
    return Rule(alpha=config.alpha, n=config.n, radius=radius, max_samples=config.max_samples, seed=seed)


def load(config: PredictConfig) -> Deployed:
    """Return the smoothed detector with its threshold: the one given, or that of its own held-out normals."""
    detector, calibration, name = load_normals(config)
    smoothing = config.smoothing or default_smoothing(detector)
    sigma = config.sigma if config.sigma is not None else getattr(detector, "sigma", None)
    if smoothing != "none" and sigma is None:
        raise InputError(f"--sigma: the way {smoothing!r} needs one, for example --sigma 0.25")
    detector = at_sigma(detector, smoothing, sigma, config.inner_sigma)
    plan = Plan(
        smoothing=smoothing,
        sigma=sigma,
        radii=(0.0,),
        n=config.n,
        percentile=config.percentile,
        quantile=config.quantile,
        seed=CALIBRATION_SEED,
        batch_size=config.batch_size or (250 if config.radius is None else 50),
        device=config.device,
    )
    purifier = load_purifier(config.purifier)
    smoothed = smooth(detector, plan, purifier)
    denoiser = None if purifier is None else purifier.fingerprint()
    if calibration is None:
        if config.threshold is None or not math.isfinite(config.threshold):
            raise InputError(f"--threshold: got {config.threshold}, need a finite score")
        smoothed.threshold_ = config.threshold
        return Deployed(detector, smoothed, {"text": "as given"}, denoiser)
    chosen = calibration[: plan.calibration]
    smoothed.calibrate(chosen, config.quantile)
    text = f"quantile {config.quantile:g} of {len(chosen)} held-out normals of {name}"
    origin = {"text": text, "quantile": config.quantile, "images": len(chosen), "data": name}
    return Deployed(detector, smoothed, origin, denoiser)


def load_normals(config: PredictConfig) -> tuple[Detector, Tensor | None, str]:
    """Return the fitted detector, and its calibration images with their name unless the threshold is given."""
    options = replace(config, limit=None)  # of the images to decide, not of the data
    folder = config.detector is not None and not is_name(config.detector)
    if folder:
        loaded = load_detector(str(config.detector))  # what is wrong with it is not the fault of the data
        if config.threshold is not None:
            return with_score_options(loaded, options), None, ""
    try:
        detector, split = load_sources(options)
    except InputError as error:
        if not folder:
            raise
        raise InputError(
            f"{error} (--data and its options say which normals set the threshold; or give --threshold)"
        ) from error
    return detector, None if config.threshold is not None else split.calibration.images, split.name


def decide_all(
    paths: Sequence[Path], loaded: Deployed, rule: Rule
) -> tuple[list[Prediction], dict[str, str], str]:
    """Return the predictions in order of path, what was wrong with the files left out, and a hash of all pixels."""
    shape = loaded.detector.image_shape
    assert shape is not None
    if shape[1] != shape[2]:
        raise InputError(
            f"--detector: takes images of {shape[1]} x {shape[2]}; predict resizes to squares only"
        )
    predictions: list[Prediction] = []
    failures: dict[str, str] = {}
    digest = hashlib.sha256()
    for index, path in enumerate(console.progress(paths, "images")):
        try:
            image = read_image(path, resolution=shape[1], channels=shape[0])
        except InputError as error:
            failures[path.name] = str(error)
            console.say(f"left out: {error}")
            continue
        digest.update(path.name.encode() + image.numpy().tobytes())
        predictions.append(decide(loaded.smoothed, image, index, rule, name=path.name, probe=not predictions))
    return predictions, failures, digest.hexdigest()
