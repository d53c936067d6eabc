"""Configuration of the training of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import tyro

from certify.checks import InputError
from diffad.attacks.threat import Norm, ThreatModel
from diffad.backbones.resnet import Stem
from diffad.config import parse_config
from diffad.training.options import TrainingOptions

Method: TypeAlias = Literal["standard", "pgd", "fgsm_rs", "trades", "hat"]

# Options that only measure: they may change when a run is resumed.
MEASURING = frozenset({"evaluation_images", "evaluation_attack_steps"})


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(TrainingOptions):
    """Train a classifier whose features become a backbone: plainly, or against an attacker."""

    output_dir: str = "runs/backbone"
    """Folder of the checkpoints, the logs and the backbone."""
    data: Annotated[str, tyro.conf.arg(aliases=["--dataset_name"])] = "cifar10"
    """A data set with classes: cifar10, mnist, digits, folder:PATH, ..."""
    exclude_classes: tuple[str, ...] = ()
    """Classes left out, to stay unseen."""
    resolution: int | None = None
    """Height and width to resize to; None: as the data set has it."""
    in_channels: int | None = None
    """1 for grey, 3 for colour; None: as the data set has it."""
    limit: int | None = None
    """Training images, and test images, at most; None: all."""
    random_flip: bool = False
    """Mirror half of the images left to right."""
    random_vertical_flip: bool = False
    """Mirror half of the images top to bottom."""
    random_shift: int = 0
    """Shift each image by up to so many pixels along each axis; the border is repeated."""

    width: int = 64
    """Channels of the first stage of the ResNet; 64 is ResNet-18."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Basic blocks of each stage."""
    stem: Stem = "small"
    """small: full size, for images of about 32 pixels; imagenet: a quarter of the size."""

    method: Method = "fgsm_rs"
    """standard; pgd (Madry et al. 2018); fgsm_rs (Wong et al. 2020), one step and fast; trades (Zhang et al. 2019); hat
    (Rade and Moosavi-Dezfooli 2022), which needs --helper."""
    norm: Norm = "linf"
    """Of the attacker."""
    eps: str = "8/255"
    """Size of the attack, [0, 1] pixel units, a number or a fraction."""
    attack_steps: int = 10
    """Steps of the attacker of pgd, trades and hat, 2.5 eps / steps each."""
    fgsm_step: float = 1.25
    """Step of fgsm_rs in units of eps (Wong et al. 2020)."""
    beta: float = 6.0
    """Weight of the robust term of trades and hat; 2.5 is usual for hat."""
    helper: str | None = None
    """Folder of the standard backbone, trained on the same classes, that labels the helper images of hat."""
    helper_scale: float = 2.0
    """Helper images lie so many perturbations away from the clean ones (H)."""
    helper_weight: float = 0.5
    """Weight of the helper term of hat (gamma)."""

    guard_every: int = 50
    """fgsm_rs: batches between two checks for catastrophic overfitting."""
    guard_images: int = 64
    """Images of a check."""
    guard_steps: int = 10
    """Steps of PGD in a check, and in the batches that follow an alarm."""
    guard_gap: float = 0.3
    """A check raises the alarm when accuracy under PGD falls short of that under fgsm_rs by more than this."""
    guard_batches: int = 100
    """Batches trained with PGD after an alarm."""

    evaluation_images: int = 512
    """Held-out images, and in the end test images, that accuracy is measured on."""
    evaluation_attack_steps: int = 20
    """Steps of the PGD that robust accuracy is measured by."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        if self.threat.eps == 0:
            raise InputError(
                "eps: got 0, need a value above 0; use --method standard to train without attack"
            )
        for name in (
            "attack_steps",
            "guard_every",
            "guard_images",
            "guard_steps",
            "guard_batches",
            "evaluation_images",
            "evaluation_attack_steps",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least 1")
        for name in ("beta", "fgsm_step", "helper_scale", "helper_weight"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: got {getattr(self, name)}, need a value above 0")
        if not 0 < self.guard_gap < 1:
            raise InputError(f"guard_gap: got {self.guard_gap}, need a value between 0 and 1")
        if self.random_shift < 0:
            raise InputError(f"random_shift: got {self.random_shift}, need at least 0")
        if (self.method == "hat") != (self.helper is not None):
            raise InputError(
                "helper: method hat needs the folder of a standard backbone, other methods take none; got "
                f"method {self.method}, helper {self.helper}"
            )

    @property
    def threat(self) -> ThreatModel:
        """The attacker's threat model."""
        return ThreatModel.parse(self.norm, self.eps)


SMOKE: dict[str, Any] = {
    "max_train_steps": 8,
    "lr_warmup_steps": 2,
    "train_batch_size": 16,
    "checkpointing_steps": 4,
    "limit": 200,
    "width": 4,
    "blocks": (1, 1),
    "attack_steps": 2,
    "guard_every": 4,
    "guard_images": 8,
    "guard_steps": 2,
    "evaluation_images": 16,
    "evaluation_attack_steps": 2,
}


def parse_arguments(argv: Sequence[str] | None = None) -> BackboneConfig:
    """Read `--config FILE`, `--smoke` and the flags, which win over the file."""
    return parse_config(
        BackboneConfig,
        argv,
        prog="python -m diffad.backbones.train",
        description="Train a backbone. --config FILE reads a YAML file, --smoke shrinks everything to end in under a "
        "minute; the flags below override both.",
        presets={"smoke": SMOKE},
    )
