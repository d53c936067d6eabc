"""What the presets run: problems, the detectors of Table 1, the ablations of Table 3, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass

EXPERIMENTS = ("detectors", "ablations", "transfer", "classification")
EXTRACTORS = ("robust", "standard")
# Table 1: what it was compared with, read off the same classifiers.
SCORES = ("msp", "max_logit", "energy", "mahalanobis", "relative_mahalanobis", "openmax")

Flags = tuple[str, ...]
# Table 3 and the options that the released code differs in: what is changed of the main row.
ABLATIONS: dict[str, Flags] = {
    "frozen_generator": ("--generator", "frozen"),  # what the released code does
    "no_generator": ("--generator", "none"),
    "no_attacker": ("--eps", "0"),
    "separate_statistics": ("--batch_statistics", "separate"),
    "alpha-0": ("--alpha", "0"),
    "alpha-0.25": ("--alpha", "0.25"),
    "alpha-0.75": ("--alpha", "0.75"),
    "alpha-1": ("--alpha", "1"),
    "pixel": ("--space", "pixel"),
    "pixel_attacked_generated": ("--space", "pixel", "--attack_generated"),
}
STANDARD, STANDARD_NO_ATTACKER = "standard_extractor", "standard_extractor_no_attacker"


@dataclass(frozen=True)
class Problem:
    """An in-distribution and its outlier sets. `{mnist}` stands for what the command line says.

    Attributes:
        data: spec of the in-distribution.
        classes: its normal classes, comma separated; None: all.
        outliers: specs of the outlier sets.
        eps: Linf radius of training and attack.
        backbone: options of `diffad.backbones.train` shared by both extractors; None: folders are given.
        robust: further options of the robust one.
        flags: options of every training of ATD.
        pixel: further ones in pixel space.
    """

    data: str
    classes: str | None
    outliers: Flags
    eps: str
    backbone: Flags | None
    robust: Flags
    flags: Flags
    pixel: Flags


@dataclass(frozen=True)
class Preset:
    """How much: problems, seeds, test images of each set, gradient steps of an attack, options of every training.

    `checks` go with every attack but those on the main rows, which have more.
    """

    problems: dict[str, Problem]
    seeds: tuple[int, ...]
    limit: int
    steps: int
    flags: Flags = ()
    checks: str = "mandatory"


# Kinds of open images that no test holds; the checkpoint is chosen on other kinds.
TRANSFORMS = (
    *("--open_data", "transforms:jigsaw", "transforms:cutmix", "transforms:rotation", "transforms:cutpaste_scar"),
    *("--validation_open_data", "transforms:elastic", "transforms:crop_extreme", "transforms:random_erasing"),
)  # fmt: skip
PLAYERS = (
    "--hidden",
    "128",
    "64",
    "32",
    "16",
    "--generator_hidden",
    "64",
    "32",
    "32",
    "64",
    "--latent",
    "32",
)
RATES = ("--learning_rate", "1e-3", "--generator_learning_rate", "1e-3", "--lr_warmup_steps", "0")
SCHEDULE = ("--max_train_steps", "200", "--save_images_steps", "50", "--checkpointing_steps", "200")
SMALL = (
    *PLAYERS,
    *RATES,
    *SCHEDULE,
    "--train_batch_size",
    "48",
    "--attack_steps",
    "5",
    "--logging_steps",
    "10",
)

DIGITS = Problem(
    "digits",
    "0,1,2,3,4",
    ("rest", "textures"),
    "16/255",
    ("--exclude_classes", "5", "6", "7", "8", "9"),
    (),
    (*SMALL, "--validation_images", "60", *TRANSFORMS),
    ("--hidden", "16", "32"),
)
CIFAR10 = Problem(
    "{cifar10}",
    None,
    ("{mnist}", "textures", "{tile}"),
    "8/255",
    None,
    (),
    (*SMALL, "--validation_images", "60", "--open_images", "4000", *TRANSFORMS),
    ("--hidden", "16", "32", "64"),
)
EVERY = (
    "--save_images_steps",
    "350",
    "--checkpointing_steps",
    "350",
)  # an epoch of 45 000 images, 128 a step
PUBLISHED = ("--num_epochs", "20", "--lr_warmup_steps", "0", *EVERY, *TRANSFORMS)
PAPER_PROBLEM = Problem(
    "{cifar10}",
    None,
    ("{mnist}", "{fashion_mnist}", "{svhn}", "textures", "{tile}"),
    "8/255",
    None,
    (),
    PUBLISHED,
    ("--hidden", "64", "128", "256"),
)  # fmt: skip
SMOKE_FLAGS = ("--smoke", "--max_train_steps", "3", "--save_images_steps", "3", "--logging_steps", "1")
SMOKE = Preset({"digits": DIGITS}, (0,), 4, 2, SMOKE_FLAGS, checks="none")
# The tables hold a third seed (`--seeds 2`); with it a slow processor takes more than half an hour.
CPU = Preset({"digits": DIGITS, "cifar10": CIFAR10}, (0, 1), 50, 20)
PAPER = Preset({"cifar10": PAPER_PROBLEM}, (0, 1, 2), 500, 100)
PRESETS = {"smoke": SMOKE, "cpu": CPU, "paper": PAPER}
