"""`diffad fit`: fit a detector that needs no training of its own on normal images and save its folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from certify import console
from certify.checks import InputError
from certify.files import write_json
from diffad.attacks.threat import parse_eps
from diffad.backbones import Backbone, load_backbone
from diffad.baselines.autoencoder import Autoencoder
from diffad.baselines.choose import fit_baseline
from diffad.baselines.generated_nn import GeneratedNN
from diffad.config import parse_config
from diffad.data import DataSplit, load_data
from diffad.detector import Detector, allowed_quantile
from diffad.interop.foreign import ForeignDetector
from diffad.interop.spec import is_spec, trained_folder
from diffad.manifest import build_manifest, describe_data, now
from diffad.ood_scores import BackboneScore
from diffad.precision import exact_float32
from diffad.registry import detector_class, load_detector
from diffad.sources import (
    DataOptions,
    default_class,
    load_detector_and_data,
    parse_radii,
    split_names,
    with_ood_probes,
)

# The scores of a classifier, and which options of `fit` each takes.
SCORES: dict[str, tuple[str, ...]] = {
    "msp": (),
    "max_logit": (),
    "energy": ("temperature",),
    "mahalanobis": ("ridge",),
    "relative_mahalanobis": ("ridge",),
    "openmax": ("tail_size", "top_classes"),
}
OWNERS = {"generator": ("generated_nn",), "backbone": ("zarnd", *SCORES), "network": ("cobra",)}


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Fit a Lipschitz score or the closed-form denoiser; pca and patch_nn choose their option on validation data."""

    detector: str = "pixel_nn"
    """pixel_mean, pca, pixel_nn, patch_nn, closed_form, autoencoder, lipschitz_net, generated_nn (with --generator),
    cobra (with --network); with --backbone: zarnd, msp, max_logit, energy, mahalanobis, relative_mahalanobis, openmax;
    or somebody else's, such as sklearn:IsolationForest."""
    data: str | None = None
    """None: digits, or what the generator, the network or the detector behind a purifier was trained on."""
    normal_class: str | None = None
    """The class taken as normal; under ood several, comma separated."""
    protocol: str = "one_class"
    """one_class, unlabeled_multiclass or ood."""
    outliers: str | None = None
    """Data sets that are anomalous under the last two, comma separated; rest: the other classes of the same set."""
    resolution: int | None = None
    radii: str = "0,0.1,0.25"
    """L2 radii whose certified AUROC on validation data decides between options."""
    generator: str | None = None
    """Folder of the trained diffusion detector that draws the bank of generated_nn, on its own training split."""
    generated: int = 2000
    """Images it draws."""
    generator_sigmas: str = "4,2,1,0.5,0.25,0.12"
    """Noise of its steps, falling, [0, 1] pixel units; within what it was trained on."""
    backbone: str | None = None
    """Folder of the network whose features zarnd compares, or of the classifier whose logits or features the scores
    msp to openmax read (`diffad backbones convert`, `diffad.backbones.train`)."""
    k: int = 2
    """Neighbours of zarnd."""
    normalize: bool = False
    """Features of zarnd at length 1, as in its published code."""
    squared: bool = False
    """Squared distances in zarnd, as in its published code."""
    layers: str = "features"
    """Layers of the backbone whose features zarnd joins, comma separated."""
    bank_size: int | None = None
    """Normals that zarnd keeps, chosen to cover the others; None: all."""
    index: str = "exact"
    """How zarnd searches: exact, or faiss_hnsw, faiss_ivf for very large banks, which may miss neighbours."""
    temperature: float = 1.0
    """Of energy."""
    ridge: float = 1e-6
    """Added to the variances of features in mahalanobis and relative_mahalanobis."""
    tail_size: int = 25
    """Largest distances of a class that openmax fits its law to."""
    top_classes: int = 10
    """Classes whose activation openmax revises (alpha in its paper)."""
    network: str | None = None
    """Folder of the trained cobra whose network gets a bank of these data (`diffad.cobra.train` fits one at once)."""
    cobra_score: str = "cosine"
    """Score of cobra: cosine, classifier, sum or ensemble_released."""
    embedding: str = "projection"
    """What the cosine of cobra compares: projection or features."""
    adversarial_eps: str = "0"
    """Train autoencoder on images attacked within this radius, [0, 1] pixel units, such as 8/255; 0: on clean ones."""
    adversarial_norm: str = "linf"
    """Norm of that radius: linf or l2."""
    device: str = "cpu"
    """Where a detector with --backbone computes the features of the training images."""
    seed: int = 0
    """Of the fit and, without a generator, of the split."""
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


@exact_float32()
def fit(config: FitConfig, argv: Sequence[str]) -> None:
    """Fit, calibrate and save."""
    if config.detector == "diffusion":
        raise InputError("--detector: a diffusion detector is trained by `accelerate launch train_ddpm.py`")
    if config.detector == "atd":
        raise InputError(
            "--detector: atd is trained, by accelerate launch -m diffad.atd.train --config configs/atd/digits.yaml"
        )
    for option, owners in OWNERS.items():
        if getattr(config, option) is not None and config.detector not in owners:
            raise InputError(
                f"--{option}: {config.detector} takes none; use --detector {' or '.join(owners)}"
            )
    if config.device != "cpu" and config.detector not in OWNERS["backbone"]:
        raise InputError(
            f"--device: got {config.device}; {config.detector} is fitted on the CPU, only detectors with --backbone on "
            "others"
        )
    started = now()
    split, detector = _FITS.get(config.detector, fitted)(config)
    detector.calibrate(split.calibration.images, quantile=allowed_quantile(len(split.calibration)))
    split = with_ood_probes(detector, split, config.device)
    name = (
        f"{detector.name}-{detector.score_name}" if isinstance(detector, ForeignDetector) else detector.name
    )
    folder = config.output_dir or f"runs/{name}"
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


def _split(config: FitConfig) -> DataSplit:
    data = config.data or "digits"
    return load_data(
        data,
        normal_class=default_class(data, config.normal_class, config.protocol),
        resolution=config.resolution,
        seed=config.seed,
        protocol=config.protocol,
        outliers=split_names(config.outliers) or (),
    )


def fitted(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data and the detector fitted on its training images."""
    if trained_folder(config.detector) is not None:
        return fitted_in_front(config)
    split, radii = _split(config), parse_radii(config.radii)
    if is_spec(config.detector):
        detector = load_detector(config.detector)
        return split, detector.fit(split.train.images, seed=config.seed)
    return split, fit_baseline(config.detector, split.train.images, split.validation, radii, seed=config.seed)


def fitted_autoencoder(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data and an autoencoder of its training images, adversarially trained if that was asked for."""
    detector = Autoencoder(
        adversarial_eps=parse_eps(config.adversarial_eps), adversarial_norm=config.adversarial_norm
    )
    split = _split(config)
    return split, detector.fit(split.train.images, seed=config.seed)


def fitted_in_front(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data that the folder named within a foreign name was trained on, and the detector on them."""
    options = DataOptions(
        detector=config.detector,
        data=config.data,
        normal_class=config.normal_class,
        protocol=None if config.protocol == "one_class" else config.protocol,  # else as it was trained
        outliers=config.outliers,
        resolution=config.resolution,
    )
    detector, split = load_detector_and_data(options, fit={"seed": config.seed})
    return split, detector


def fitted_on_features(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data and ZARND on the features of its training images."""
    from diffad.zarnd import Zarnd

    options = {name: getattr(config, name) for name in ("k", "normalize", "squared", "bank_size", "index")}
    layers = [layer.strip() for layer in config.layers.split(",") if layer.strip()]
    detector = Zarnd.from_backbone(_backbone(config), layers=layers, **options)
    split = _split(config)
    detector.to(config.device).fit(split.train.images, seed=config.seed)
    return split, detector.to("cpu")


def fitted_on_classifier(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data and a score of a classifier, which learns from the classes of its training images."""
    chosen = detector_class(config.detector)
    if not issubclass(chosen, BackboneScore):
        raise InputError(f"--detector: {config.detector} is no score of a classifier")
    options = {name: getattr(config, name) for name in SCORES[config.detector]}
    detector = chosen.from_backbone(_backbone(config), **options).to(config.device)
    split = _split(config)
    if split.train.categories is None:
        detector.fit(split.train.images, seed=config.seed)
    else:
        detector.fit_labelled(split.train.images, split.train.categories, seed=config.seed)
    return split, detector.to("cpu")


def _backbone(config: FitConfig) -> Backbone:
    if config.backbone is None:
        raise InputError(
            f"--backbone: {config.detector} needs the folder of a network, see `diffad backbones convert --help`"
        )
    return load_backbone(config.backbone)


def fitted_on_network(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data, by default those of the training, and COBRA with a bank of its training images."""
    from diffad.cobra import Cobra
    from diffad.cobra.config import check_score

    if config.network is None:
        raise InputError(
            "--network: cobra needs the folder of a trained one; accelerate launch -m diffad.cobra.train --config "
            "configs/cobra/digits.yaml"
        )
    options = DataOptions(
        detector=config.network,
        data=config.data,
        normal_class=config.normal_class,
        resolution=config.resolution,
    )
    trained, split = load_detector_and_data(options)
    if not isinstance(trained, Cobra) or trained.backbone is None or trained.heads is None:
        raise InputError(f"--network: {config.network} holds a {trained.name}, need a trained cobra")
    facts = trained.backbone.facts.get("training", {})
    check_score(config.cobra_score, config.embedding, facts.get("losses", ()))
    scored = {"score": config.cobra_score, "embedding": config.embedding}
    detector = Cobra.from_network(trained.backbone, trained.heads, **scored)
    return split, detector.fit(split.train.images, seed=config.seed)


def fitted_on_samples(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data that the generator was trained on and the detector fitted on it and on its samples."""
    if config.generator is None:
        raise InputError("--generator: generated_nn needs the folder of a trained diffusion detector")
    if (config.data, config.normal_class, config.resolution) != (None, None, None):
        raise InputError(
            "--generator: it was trained on its own data; leave --data, --normal_class, --resolution out"
        )
    generator, split = load_detector_and_data(DataOptions(detector=config.generator))
    if generator.name != "diffusion":
        raise InputError(
            f"--generator: {config.generator} holds a {generator.name}, need a diffusion detector"
        )
    levels = parse_radii(config.generator_sigmas, "--generator_sigmas")
    detector = GeneratedNN(generated=config.generated, sigmas=levels).attach(generator)
    console.say(f"drawing {config.generated} images of {split.name} in {len(levels)} steps each")
    return split, detector.fit(split.train.images, seed=config.seed)


_FITS = {
    "autoencoder": fitted_autoencoder,
    "generated_nn": fitted_on_samples,
    "zarnd": fitted_on_features,
    "cobra": fitted_on_network,
    **dict.fromkeys(SCORES, fitted_on_classifier),
}
