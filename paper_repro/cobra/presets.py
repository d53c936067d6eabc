"""What the presets run: problems, trainings that differ from the main one, and how much of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffad.data.torchvision_sets import SETS

CLEAN, ADVERSARIAL, HELD_OUT = "clean", "adversarial", "held_out"  # the twins, and the one on another class
LOW, HIGH = "4/255", "2/255"  # Linf radii of the publication: small images, and images of 224 pixels
CANDIDATES = "4/255,8/255,16/255"  # radii to choose from where none is given
COLLAPSED = (
    0.15  # chosen: the smallest at which the clean twin's AUROC `both` on another normal class is below this
)
EXPERIMENTS = ("main", "losses", "filter", "crafting", "scores", "curves")

Flags = dict[str, tuple[str, ...]]
# Table 6. Without a contrastive loss the projection is untrained, so the cosine compares the features.
LOSSES: Flags = {
    "CLS": ("--losses", "classification", "--embedding", "features"),
    "CL": ("--losses", "nt_xent"),
    "SupCL": ("--losses", "supcon"),
    "Opposite": ("--losses", "opposite"),
    "COBRA-clamped": ("--losses", "paper_clamped"),
    "COBRA-additive": ("--losses", "additive"),
    "COBRA-clamped+CLS": ("--losses", "paper_clamped", "classification"),
}
# Tables 7 and 12: off, levels around .05, and the rule of the released code (p < .99, five draws of one transform).
FILTER: Flags = {
    "no_filter": ("--crafting", "no_filter"),
    # with a filter of its own: p-values from 24 held-out digits, a quarter of them, do not go below 1 / 25
    "level-0.02": ("--level", "0.02", "--filter_held_out", "0.55"),
    "level-0.1": ("--level", "0.1"),
    "level-0.2": ("--level", "0.2"),
    "released_filter": ("--crafting", "released_filter"),
}
# Table 5, those that need no other images, and what the released code crafts.
CRAFTING: Flags = {
    name: ("--crafting", name)
    for name in ("cutpaste", "csi_rotation", "released_rotation", "released_cutpaste")
}
TRAININGS: dict[str, Flags] = {"losses": LOSSES, "filter": FILTER, "crafting": CRAFTING}
# Table 10: other scores of the network that the main row has; options of `diffad fit`.
SCORES: Flags = {
    "classifier": ("--cobra_score", "classifier"),
    "sum": ("--cobra_score", "sum"),
    "features": ("--embedding", "features"),
    "ensemble_released": ("--cobra_score", "ensemble_released"),
}
# What the main row is called in the table of each experiment.
MAIN_ROW = {
    "losses": "COBRA-additive+CLS (main)",
    "filter": "level-0.05 (main)",
    "crafting": "paper (main)",
    "scores": "cosine (main)",
}
L2 = ("16/255", "32/255", "64/255", "128/255")  # Table 15, which prints the last as 128/256


@dataclass(frozen=True)
class Problem:
    """What is normal: `data` holds the options of its images, in which `{mnist}` stands for what the command line says.

    `held_out` are those options with another normal class, on which the clean twin is attacked to choose eps; where
    `eps` is given, nothing is chosen. `family` names the problems whose mean a table shows. `attack_steps`: by
    variant (CLEAN, ADVERSARIAL, HELD_OUT), the steps of its attack where those of the preset are too few.
    """

    data: tuple[str, ...]
    family: str
    held_out: tuple[str, ...] = ()
    eps: str | None = None
    experiments: tuple[str, ...] = ("main",)
    flags: tuple[str, ...] = ()
    attack_steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """How much: seeds, test images of each label, steps of an attack, draws of a certificate.

    `checks` go with every attack of a table but the main rows', which have more.
    `flags` are options of every training; `linf` are the radii of the curve; `published` also attacks as the
    publication did, by PGD-1000 from ten starts.
    """

    problems: dict[str, Problem]
    seeds: tuple[int, ...]
    limit: int
    steps: int
    certify_n: int
    linf: tuple[str, ...]
    flags: tuple[str, ...] = ()
    published: bool = False
    checks: str = "mandatory"


def one_class(spec: str, normal: str, *options: str) -> tuple[str, ...]:
    """Return options of images with one normal class."""
    return ("--data", spec, "--normal_class", normal, *options)


DIGITS = Problem(one_class("digits", "8"), "digits", one_class("digits", "3"), experiments=EXPERIMENTS)
# With 20 steps attacks on clean twins failed eps_sweep or black_boxes, both mandatory, and some of MNIST doubling.
CPU_DIGITS = replace(DIGITS, attack_steps={CLEAN: 50, HELD_OUT: 50})
SMALL = ("--resolution", "16")  # MNIST at the size of the digits: a third of the time
MNIST = Problem(
    one_class("{mnist}", "8", *SMALL),
    "mnist",
    one_class("{mnist}", "3", *SMALL),
    attack_steps={CLEAN: 50, ADVERSARIAL: 50, HELD_OUT: 50},
)
UNLABELED = Problem(
    ("--data", "{mnist}", "--protocol", "unlabeled_multiclass", "--outliers", "{outliers}", *SMALL),
    "unlabeled",
    eps="16/255",
)
# A training of about a minute on one core; one training image in four sets the filter's p-values.
NETWORK = ("--width", "8", "--blocks", "1", "1", "1", "--train_batch_size", "48", "--attack_steps", "5")
SCHEDULE = ("--max_train_steps", "300", "--lr_warmup_steps", "30", "--checkpointing_steps", "1000")
LOG = ("--logging_steps", "25")
SMALL_FILTER = ("--filter_steps", "200", "--filter_width", "8")
SMOKE = Preset({"digits": DIGITS}, (0,), 4, 2, 50, ("8/255", "16/255"), ("--smoke",), checks="none")
CPU = Preset(
    {"digits": CPU_DIGITS, "mnist": MNIST, "unlabeled": UNLABELED},
    (0, 1, 2),
    50,
    20,
    1000,
    ("2/255", "4/255", "8/255", "16/255", "32/255"),
    (*NETWORK, *SCHEDULE, *LOG, *SMALL_FILTER),
)
PRESETS = {"smoke": SMOKE, "cpu": CPU}

SMALL_SETS = ("cifar10", "cifar100", "mnist", "fashion_mnist", "svhn")
RIVALS = ("cifar100", "svhn", "mnist", "fashion_mnist")  # Table 3, beside unlabelled CIFAR-10
ABLATED = "cifar10"  # the set of Tables 4 to 15
# App. I: 100 epochs of LARS, ten of warm-up; a class of CIFAR-10 has 5000 images, 39 batches of 128.
APPENDIX_I = ("--max_train_steps", "3900", "--lr_warmup_steps", "390", "--checkpointing_steps", "390")
FULL_FILTER = ("--filter_steps", "3900", "--filter_width", "64", "--filter_blocks", "2", "2", "2", "2")


def paper_preset(mvtec: Path | None, classes: Sequence[str] | None) -> Preset:
    """Return the preset `paper`: Tables 1 to 3 and the ablations of CIFAR-10, ResNet-18, the published radii.

    Args:
        mvtec: folder of the categories of MVTec AD; None: without Table 1.
        classes: normal classes of the one-class problems; None: all of each set.
    """
    problems: dict[str, Problem] = {}
    for name in SMALL_SETS:
        flip = ("--random_flip",) if name.startswith("cifar") else ()
        for label in dict.fromkeys(classes or SETS[name].classes):
            problem = Problem(one_class(f"{{{name}}}", label), name, eps=LOW, flags=flip)
            if name == ABLATED:
                problem = replace(problem, experiments=EXPERIMENTS)
            problems[f"{name}-{label}"] = problem
    for rival in RIVALS:
        data = ("--data", "{cifar10}", "--protocol", "unlabeled_multiclass", "--outliers", f"{{{rival}}}")
        problems[f"unlabeled-{rival}"] = Problem(
            data, f"unlabeled-{rival}", eps=LOW, flags=("--random_flip",)
        )
    for folder in sorted(entry for entry in mvtec.iterdir() if (entry / "train").is_dir()) if mvtec else ():
        data = ("--data", f"mvtec:{folder}", "--resolution", "224")
        large = ("--stem", "imagenet", "--train_batch_size", "64")
        problems[f"mvtec-{folder.name}"] = Problem(data, "mvtec", eps=HIGH, flags=large)
    linf = tuple(f"{size}/255" for size in range(1, 9))  # Table 14
    flags = (*APPENDIX_I, *FULL_FILTER)
    return Preset(problems, (0,), 500, 100, 1000, linf, flags=flags, published=True)
