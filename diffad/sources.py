"""Options that every command shares: which detector, on which data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import tyro
from platformdirs import user_cache_path

from certify.checks import InputError
from certify.console import say
from diffad.data import DataSplit, load_data
from diffad.detector import Detector
from diffad.interop.spec import trained_folder
from diffad.leakage import with_kept_images, with_seen_sets
from diffad.outlier_sets import cue_aurocs, is_ood
from diffad.places import remembered_places
from diffad.registry import is_name, load_detector

BUILT_IN = "digits.yaml"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Detector and data of a command."""

    detector: str | None = None
    """Folder of a trained detector, the name of one to fit here, or somebody else's: module:function,
    sklearn:IsolationForest, pyod:IForest, pytorch_ood:ReAct,backbone=FOLDER, onnx:FILE,
    anomalib:Patchcore,weights=FILE; None: the built-in digits detector."""
    data: Annotated[str | None, tyro.conf.arg(aliases=["--dataset_name"])] = None
    """digits, textures:FAMILY, mvtec:PATH, folder:PATH, mnist, ...; None: what the detector was trained on."""
    normal_class: str | None = None
    """The class taken as normal, where the data set has classes; under ood several, comma separated."""
    protocol: str | None = None
    """one_class, unlabeled_multiclass or ood; None: that of the detector's training, else one_class."""
    outliers: str | None = None
    """Data sets that are anomalous under the last two, comma separated; rest: the other classes of the same set."""
    resolution: int | None = None
    """Height and width of the images; None: those of the detector."""
    data_seed: int | None = None
    """Seed of the split; None: that of the detector's training."""
    output_dir: Path | None = None
    """Folder of the results; None: one under runs/ where the command needs one."""


@dataclass(frozen=True, kw_only=True)
class SourceOptions(DataOptions):
    """Detector, its score, and the test images of a command."""

    limit: int | None = None
    """Test images of each label, at most; None: all."""
    score: str | None = None
    """paper, root_max, l2, patch_max or patch_relative, of a diffusion detector; None: as chosen on validation."""
    patch_size: int | None = None
    """Window of its patch score."""
    inner_sigma: float | None = None
    """Noise of the detector itself under the ways input and denoise; None: as saved."""
    fit_sigma: float | None = None
    """Fit a named detector on normals with Gaussian noise of this size, for --smoothing input; None: without noise."""
    fit_copies: int = 1
    """Noisy versions of each training image then."""


@dataclass(frozen=True, kw_only=True)
class SmoothedOptions(SourceOptions):
    """The smoothed detector that a command certifies or attacks, and how it runs."""

    sigma: str | None = None
    """Standard deviation of the smoothing noise, [0, 1] pixel units; several, comma separated (0.5,1,2), for the sum of
    their percentiles; None: the detector's own."""
    n: int = 1000
    """Noise draws an image."""
    percentile: float = 0.5
    """Percentile of the noisy score that is the smoothed score."""
    purifier: str | None = None
    """Folder of a diffusion detector that denoises for another detector (way denoise)."""
    batch_size: int = 250
    """Images a forward pass, a multiple of 50."""
    compile: bool = False
    """Compile the network first (torch.compile): minutes once, worth it for long runs on a GPU."""
    device: str = "cpu"
    seed: int = 0
    """Key of all noise."""
    json: bool = False
    """Print one JSON object instead of tables."""


def load_sources(options: SourceOptions, *, may_train: bool = True) -> tuple[Detector, DataSplit]:
    """Return a fitted detector, its score as asked for, and the data it is to be tested on.

    With `may_train=False` a missing built-in detector is refused instead of trained.
    """
    if options.detector is None and not may_train:
        built_in_detector(may_train=False)
    noise = {"noise_sigma": options.fit_sigma, "noise_copies": options.fit_copies}
    detector, split = load_detector_and_data(options, limit=options.limit, fit=noise)
    return with_score_options(detector, options), split


def load_detector_and_data(
    options: DataOptions, limit: int | None = None, fit: Mapping[str, Any] | None = None
) -> tuple[Detector, DataSplit]:
    """Return a fitted detector and its data; trains the built-in detector if none is named and none is there.

    `fit` holds options for `Detector.fit` of a detector that is named.
    """
    folder = options.detector if options.detector is not None else str(built_in_detector())
    named = is_name(folder)
    source = trained_folder(folder) if named else Path(folder)
    trained_on = {} if source is None else _training_data(source, places=options.data is None)
    if options.data is not None and _kind(options.data) != _kind(trained_on.get("spec", "")):
        trained_on = {}  # another data set: its classes and options are not those of the training
    given = {
        "spec": options.data,
        "normal_class": options.normal_class,
        "resolution": options.resolution,
        "seed": options.data_seed,
        "protocol": options.protocol,
        "outliers": split_names(options.outliers),
    }
    request: dict[str, Any] = {**trained_on, **{k: v for k, v in given.items() if v is not None}}
    request.setdefault("spec", "digits")
    request["normal_class"] = default_class(
        request["spec"], request.get("normal_class"), request.get("protocol")
    )
    detector = load_detector(folder)
    if not named and detector.image_shape is not None and options.resolution is None:
        request["resolution"], request["channels"] = detector.image_shape[1], detector.image_shape[0]
    spec = request.pop("spec")
    try:
        split = load_data(spec, **{**request, "limit": limit})
    except InputError as error:
        outliers = request.get("outliers") or ()
        moved = options.data is None and ":" in spec
        moved |= options.outliers is None and any(":" in name for name in outliers)
        if not moved:
            raise
        # a manifest keeps no absolute path, so that it can be given away, and other machines do not know it
        against = f" against {', '.join(outliers)}" if outliers else ""
        where = "--data and --outliers" if outliers else "--data"
        raise InputError(
            f"{error} ({source} was trained on {spec!r}{against}; say where it is now with {where})"
        ) from None
    if detector.image_shape is None:
        say(f"fitting {folder} on {len(split.train)} images of {split.name}")
        detector = detector.fit(split.train.images, **(fit or {}))
    elif fit and fit.get("noise_sigma") is not None:
        raise InputError(f"--fit_sigma: {folder} is fitted already; name a detector such as pixel_nn")
    shape = tuple(split.test.images.shape[1:])
    if detector.image_shape != shape:
        raise InputError(
            f"--detector: {folder} takes images {detector.image_shape}, {split.name} has {shape}; "
            "leave --resolution out, or train on such images"
        )
    device = getattr(options, "device", "cpu")
    if source is not None and any(value is not None for value in given.values()):
        split = with_kept_images(detector, split, device)
    training = {} if source is None else _training_options(source)
    return detector, with_ood_probes(detector, split, device, training)


def with_ood_probes(
    detector: Detector, split: DataSplit, device: str = "cpu", training: Mapping[str, Any] | None = None
) -> DataSplit:
    """Return the split, under protocol ood with two things in its probe that a number may owe something to.

    What the detector makes of copies of normals, and what its training (its options in `training`) or its backbone's
    knew of the outlier sets.
    """
    if not is_ood(split.options):
        return split
    split = replace(split, probe={**split.probe, **cue_aurocs(detector, split, device)})
    return with_seen_sets(detector, split, training or {})


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Read comma-separated names, for example of outlier sets; None stays None."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def default_class(spec: str, normal_class: str | None, protocol: str | None = None) -> str | None:
    """Return the class taken as normal: under `one_class`, 8 for the built-in digits when none is named."""
    one = protocol in (None, "one_class")
    return "8" if spec == "digits" and normal_class is None and one else normal_class


def with_score_options(detector: Detector, options: SourceOptions) -> Detector:
    """Return the detector with --score and --patch_size; refused where a detector has no such choice."""
    changes = {"score_name": options.score, "patch_size": options.patch_size}
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        return detector
    if getattr(options, "smoothing", None) == "sure":
        raise InputError("--score, --patch_size: the way 'sure' has a score of its own; leave them out")
    change = getattr(detector, "with_options", None)
    if change is None:
        raise InputError(f"--score, --patch_size: {detector.name} has one score; leave them out")
    changed: Detector = change(**changes)
    return changed


def at_sigma(detector: Detector, smoothing: str, sigma: float | None, inner_sigma: float | None) -> Detector:
    """Return a diffusion detector set for one way of smoothing; any other detector as it is.

    `reference`: its statistics of normals follow the smoothing noise. `input` and `denoise`: its own noise is
    `inner_sigma`, one stored draw, since every smoothing draw already is a draw.
    """
    change = getattr(detector, "with_options", None)
    if inner_sigma is not None and (change is None or smoothing not in ("input", "denoise")):
        raise InputError(
            f"--inner_sigma: {detector.name} under the way {smoothing or 'plain'!r} has no noise of its own to set; "
            "it goes with a diffusion detector and --smoothing input or denoise"
        )
    if change is None or smoothing in ("none", "", "sure"):
        return detector
    if smoothing == "reference":
        changed: Detector = change(sigma=sigma)
        return changed
    changed = change(draws=1, **({} if inner_sigma is None else {"sigma": inner_sigma}))
    return changed


def _kind(spec: str) -> str:
    return spec.partition(":")[0]


def _training_data(folder: Path, *, places: bool) -> dict[str, Any]:
    """Data options of a training run's manifest; empty when the folder has none.

    With `places` those of this machine, which the manifest does not keep.
    """
    manifest = _read_manifest(folder)
    found = {**manifest["data"]["options"], **(remembered_places(manifest) if places else {})}
    return {key: value for key, value in found.items() if value is not None and key != "limit"}


def _training_options(folder: Path) -> dict[str, Any]:
    """Options of the command that made a detector's folder; empty when the folder has no manifest."""
    commands = _read_manifest(folder).get("commands") or [{}]
    found: dict[str, Any] = commands[-1].get("config", {})
    return found


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a training, with empty data options when the folder has none."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return {"data": {"options": {}}}
    try:
        found: dict[str, Any] = json.loads(manifest.read_text(encoding="utf-8"))
        _ = found["data"]["options"].items
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{manifest}: is no manifest of a training ({error}); name --data, or train again"
        ) from None
    return found


def config_path(name: str) -> Path:
    """Return a built-in configuration: inside the installed package, or in `configs/` of the checkout."""
    here = Path(__file__).parent
    for folder in (here / "configs", here.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{name}: not among the built-in configurations; reinstall diffad")


def built_in_detector(*, may_train: bool = True) -> Path:
    """Return the folder of the built-in digits detector; trains it once into the platform's cache folder."""
    from diffad.config import read_config
    from diffad.diffusion.config import TrainConfig
    from diffad.diffusion.train import train
    from diffad.folder import CONFIG

    config = read_config(TrainConfig, config_path(BUILT_IN))
    folder = user_cache_path("diffad") / f"digits-{config.normal_class}"
    if not (folder / CONFIG).is_file() or not (folder / "manifest.json").is_file():
        if not may_train:
            raise InputError(
                "--detector: none named, and the built-in one is not trained yet; name one, or run "
                "`certify --sigma 1` once"
            )
        say(f"no detector named: training the built-in digits detector into {folder} (a few minutes, once)")
        train(replace(config, output_dir=str(folder)))
    else:
        say(f"no detector named: using the built-in digits detector in {folder}")
    return folder


def parse_radii(text: str, name: str = "--radii") -> tuple[float, ...]:
    """Read radii such as `0,0.1,8/255`: numbers or fractions, at least 0."""
    try:
        radii = tuple(float(Fraction(part.strip())) for part in text.split(",") if part.strip())
    except (ValueError, ZeroDivisionError, OverflowError):
        raise InputError(f"{name}: got {text!r}, need numbers or fractions such as 0,0.1,8/255") from None
    if not radii or min(radii) < 0:
        raise InputError(f"{name}: got {text!r}, need at least one number, none below 0")
    return radii


def noise_levels(text: str, name: str) -> tuple[float, ...]:
    """Read comma separated numbers above 0."""
    levels = parse_radii(text, name)
    if min(levels) <= 0:
        raise InputError(f"{name}: got {text!r}, need numbers above 0")
    return levels


def smoothing_levels(text: str | None) -> tuple[float | None, tuple[float, ...]]:
    """Read `--sigma` as a plan takes it: the largest level, and all of a sum, the smallest first; empty for one."""
    levels = () if text is None else tuple(sorted(noise_levels(text, "--sigma")))
    return max(levels, default=None), levels if len(levels) > 1 else ()
