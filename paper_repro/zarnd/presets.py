"""What the presets run: families of backbones, test sets that these have never seen, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

KINDS = ("standard", "robust")
LOW, HIGH = "4/255", "2/255"  # Linf radii of the publication: small images, and images of 224 pixels
Family = dict[str, tuple[str, ...]]  # for each kind the configuration file, then changes to it


@dataclass(frozen=True)
class TestSet:
    """A one-class problem: `family` names the backbones that look at it, `data` the options of its images.

    `{cifar10}`, `{mnist}`, `{tile}` in `data` stand for what the command line says. `all_seeds` False: only the
    backbones of the first seed look at it.
    """

    family: str
    data: tuple[str, ...]
    eps: str = LOW
    all_seeds: bool = True


@dataclass(frozen=True)
class Preset:
    """Which backbones and sets, and how much: test images of each label, steps of an attack, draws of a certificate.

    `extras`: curves, surrogate, neighbours, L2 attacks and displacement, for the first seed; `scaling`: time and memory
    against the bank. `flags` go to every training. `checks`: those of the extras.
    """

    families: dict[str, Family]
    sets: dict[str, TestSet]
    seeds: tuple[int, ...]
    limit: int
    steps: int
    certify_n: int
    extras: bool = True
    scaling: bool = True
    flags: tuple[str, ...] = ()
    checks: str = "mandatory"


DIGITS: Family = {"standard": ("digits.yaml", "--method", "standard"), "robust": ("digits.yaml",)}
CIFAR10: Family = {"standard": ("cifar10_standard.yaml",), "robust": ("cifar10_fgsm_rs.yaml",)}
WIDE: Family = {"standard": ("cifar10_standard_gpu.yaml",), "robust": ("cifar10_fgsm_rs_gpu.yaml",)}
# The digits 0 to 4 are unseen by their backbones; MNIST and the tiles by those of CIFAR-10.
SMALL_SETS = {
    "digits": TestSet("digits", ("--data", "digits", "--normal_class", "3")),
    "mnist": TestSet("cifar10", ("--data", "{mnist}", "--normal_class", "8")),
    "magnetic_tile": TestSet("cifar10", ("--data", "{tile}", "--resolution", "32")),
}
WIDE_SETS = {
    f"{name}_wide": replace(SMALL_SETS[name], family="cifar10_wide", all_seeds=False)
    for name in ("mnist", "magnetic_tile")
}
SMOKE = Preset(
    {"digits": DIGITS},
    {"digits": SMALL_SETS["digits"]},
    (0,),
    4,
    4,
    100,
    scaling=False,
    flags=("--smoke",),
    checks="none",
)
CPU = Preset({"digits": DIGITS, "cifar10": CIFAR10}, SMALL_SETS, (0, 1, 2), 50, 50, 1000)
GPU = replace(CPU, families={**CPU.families, "cifar10_wide": WIDE}, sets={**SMALL_SETS, **WIDE_SETS})
PRESETS = {"smoke": SMOKE, "cpu": CPU, "gpu": GPU}

# The published sets: side of the images as they are attacked here, and the class names of each set.
PUBLISHED = {"cifar10": 32, "cifar100": 32, "mnist": 28, "fashion_mnist": 28}


def paper_preset(classes: dict[str, tuple[str, ...]], mvtec: Path | None, side: int | None) -> Preset:
    """Return the preset `paper`: every class of the published sets, every category of MVTec AD, one robust backbone.

    Args:
        classes: the classes of each set that take the part of the normal one.
        mvtec: folder of the categories; None: without MVTec AD.
        side: height and width that images are attacked at; None: their own, and 224 for MVTec AD.
    """
    sets = {
        f"{name}-{label}": TestSet(
            "published",
            ("--data", f"{{{name}}}", "--normal_class", label, "--resolution", str(side or PUBLISHED[name])),
        )
        for name, labels in classes.items()
        for label in labels
    }
    for folder in sorted(entry for entry in mvtec.iterdir() if (entry / "train").is_dir()) if mvtec else ():
        data = ("--data", f"mvtec:{folder}", "--resolution", str(side or 224))
        sets[f"mvtec-{folder.name}"] = TestSet("published", data, HIGH)
    return Preset({}, sets, (0,), 100, 100, 1000, extras=False, scaling=False)
