"""How `diffad fit` makes each detector: the data, and the detector fitted on their training images."""

from __future__ import annotations

from certify import console
from certify.checks import InputError
from diffad.attacks.threat import parse_eps
from diffad.backbones import Backbone, load_backbone
from diffad.baselines.autoencoder import Autoencoder
from diffad.baselines.choose import fit_baseline
from diffad.baselines.generated_nn import GeneratedNN
from diffad.commands.fit_options import OWNERS, SCORES, FitConfig
from diffad.data import DataSplit, load_data
from diffad.detector import Detector
from diffad.interop.pytorch_ood import PytorchOODDetector
from diffad.interop.spec import is_spec, trained_folder
from diffad.ood_scores import BackboneScore
from diffad.registry import detector_class, load_detector
from diffad.sources import DataOptions, default_class, load_detector_and_data, parse_radii, split_names


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
        if split.train.categories is not None and isinstance(detector, PytorchOODDetector):
            return split, detector.fit_labelled(split.train.images, split.train.categories, seed=config.seed)
        return split, detector.fit(split.train.images, seed=config.seed)
    given = {
        option: getattr(config, option)
        for option, owners in OWNERS.items()
        if config.detector in owners and getattr(config, option) is not None
    }
    detector = fit_baseline(
        config.detector, split.train.images, split.validation, radii, seed=config.seed, given=given
    )
    return split, detector


def fitted_autoencoder(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data and an autoencoder of its training images, adversarially trained if that was asked for."""
    detector = Autoencoder(
        adversarial_eps=parse_eps(config.adversarial_eps), adversarial_norm=config.adversarial_norm
    )
    split = _split(config)
    return split, detector.fit(split.train.images, seed=config.seed)


def fitted_in_front(config: FitConfig) -> tuple[DataSplit, Detector]:
    """Return the data that the folder named within a foreign name was trained on, and the detector on them."""
    options = _as_trained(config, config.detector)
    detector, split = load_detector_and_data(options, fit={"seed": config.seed})
    return split, detector


def _as_trained(config: FitConfig, detector: str) -> DataOptions:
    """Return the data of a trained detector, but for what the options say otherwise."""
    return DataOptions(
        detector=detector,
        data=config.data,
        normal_class=config.normal_class,
        protocol=None
        if config.protocol == "one_class"
        else config.protocol,  # the default: as it was trained
        outliers=config.outliers,
        resolution=config.resolution,
    )


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
    trained, split = load_detector_and_data(_as_trained(config, config.network))
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
    own = (config.data, config.normal_class, config.resolution, config.outliers)
    if any(value is not None for value in own) or config.protocol != "one_class":
        raise InputError(
            "--generator: it was trained on its own data; leave --data, --normal_class, --resolution, --protocol and "
            "--outliers out"
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


FITS = {
    "autoencoder": fitted_autoencoder,
    "generated_nn": fitted_on_samples,
    "zarnd": fitted_on_features,
    "cobra": fitted_on_network,
    **dict.fromkeys(SCORES, fitted_on_classifier),
}
