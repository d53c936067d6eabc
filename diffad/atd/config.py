"""Configuration of the training of ATD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from certify.checks import InputError, check_choice
from diffad.atd.adversary import Adversary
from diffad.atd.detector import Space
from diffad.atd.feature_players import DISCRIMINATOR_HIDDEN, GENERATOR_HIDDEN, LATENT
from diffad.atd.network import Statistics
from diffad.atd.open_set import CHOOSING, TRAINED, OpenSources
from diffad.attacks.threat import Norm, ThreatModel
from diffad.config import parse_config
from diffad.data.protocols import PROTOCOLS
from diffad.training.data import DataOptions
from diffad.training.options import Schedule

# Read once the players are trained: it may change when a run is resumed, and when a finished one is repeated.
AFTER_TRAINING = frozenset({"select_on"})
_TRAINED_STREAM, _CHOOSING_STREAM = 0, 1


@dataclass(frozen=True, kw_only=True)
class AtdConfig(DataOptions):
    """Train the discriminator of ATD against an attacker, on the features of a frozen backbone."""

    output_dir: str = "runs/atd"
    """Folder of the checkpoints, the logs, the candidates and the detector."""
    backbone: str | None = None
    """Folder of the frozen network whose features are judged (`diffad.backbones.train`, `diffad backbones convert`)."""
    space: Space = "feature"
    """feature, or pixel: the players make and judge images, without a backbone."""
    hidden: tuple[int, ...] = DISCRIMINATOR_HIDDEN
    """Sizes of the discriminator's layers; in pixel space channels of its stages, each halving the side."""
    generator_hidden: tuple[int, ...] = GENERATOR_HIDDEN
    """Sizes of the generator's layers; in pixel space it mirrors the discriminator."""
    latent: int = LATENT
    """Length of the generator's noise."""

    generator: Literal["trained", "frozen", "none"] = "trained"
    """frozen leaves it as initialised, which the published code does by a detached tensor."""
    alpha: float = 0.5
    """Weight of the open set; generated features have 1 - alpha. 1 leaves them out, 0 the open set."""
    batch_statistics: Statistics = "joint"
    """Batch norm over in-distribution, open and generated parts together (published), or over each alone."""
    generator_learning_rate: float = 1e-4
    """Of the generator; learning_rate is the discriminator's, 1e-4 / 1.5 in the published code."""

    norm: Norm = "linf"
    """Of the attacker."""
    eps: str = "8/255"
    """Size of the attack, [0, 1] pixel units, a number or a fraction; 0 trains without an attacker."""
    attack_steps: int = 10
    """Gradient steps of the attacker, 2.5 eps / steps each, while training and while validating."""
    attack_generated: bool = False
    """Attack generated images too; pixel space only."""

    open_data: tuple[str, ...] = TRAINED
    """What to train against: textures:FAMILY, transforms:NAME (hard transforms of the normals), or data sets."""
    open_images: int | None = None
    """Their images in all; None: as many as in-distribution ones."""
    validation_open_data: tuple[str, ...] = CHOOSING
    """What to choose the checkpoint on, beside held-out normals: of another kind, never a test set."""
    validation_images: int = 200
    """Images a side that candidates are compared on."""
    validation_eps: str | None = None
    """Size of the attack that they are compared under; None: eps."""
    select_on: Literal["attacked", "clean", "last"] = "attacked"
    """What chooses among the candidates, taken every save_images_steps and at the end; last: the end."""

    learning_rate: float = 1e-4 / 1.5
    """Of the discriminator."""
    adam_beta1: float = 0.5
    adam_weight_decay: float = 0.0
    lr_scheduler: Schedule = "constant"
    max_grad_norm: float = float("inf")
    """Of both players together."""
    train_batch_size: int = 128
    """In-distribution images a process and a backward pass; as many open and generated ones come with them."""
    use_ema: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range, and options that do not go together."""
        super().__post_init__()
        for name in ("attack_steps", "open_images", "validation_images", "latent"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name}: got {value}, need at least 1")
        if self.train_batch_size < 2:
            raise InputError("train_batch_size: got 1, batch norm needs at least 2")
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError(f"alpha: got {self.alpha}, need a weight from 0 to 1")
        if self.alpha == 0.0 and self.generator == "none":
            raise InputError(
                "alpha: got 0 without a generator, which leaves nothing to tell normals from; raise it"
            )
        if not self.generator_learning_rate > 0:
            raise InputError(f"generator_learning_rate: got {self.generator_learning_rate}, need above 0")
        if self.optimizer != "adamw":
            raise InputError(f"optimizer: got {self.optimizer}; the two players take adamw alone")
        if self.save_images_steps % self.logging_steps:
            raise InputError(
                f"save_images_steps: got {self.save_images_steps}, need a multiple of logging_steps, "
                f"{self.logging_steps}"
            )
        if self.attack_generated and (self.space != "pixel" or self.generator == "none"):
            raise InputError(
                "attack_generated: generated features have no pixels to change; use --space pixel with a generator"
            )
        if self.space == "pixel" and self.backbone is not None:
            raise InputError(
                "backbone: pixel space has none; leave it out, or take --space feature to judge features"
            )
        both = sorted(set(self.open_data) & set(self.validation_open_data))
        if both:
            raise InputError(
                f"validation_open_data: {', '.join(both)} is trained on; choose another kind of images"
            )
        check_choice(self.protocol, PROTOCOLS, "protocol")
        _ = (
            self.threat,
            self.validation_threat,
            self.trained_on,
            self.chosen_on,
        )  # which check what they are made of

    @property
    def threat(self) -> ThreatModel:
        """The attacker's threat model while training."""
        return ThreatModel.parse(self.norm, self.eps)

    @property
    def validation_threat(self) -> ThreatModel:
        """The attacker's threat model while validating."""
        return ThreatModel.parse(self.norm, self.eps if self.validation_eps is None else self.validation_eps)

    @property
    def adversary(self) -> Adversary | None:
        """The attacker; None without one."""
        return None if self.threat.eps == 0 else Adversary(self.threat, self.attack_steps)

    @property
    def trained_on(self) -> OpenSources:
        """The open set to train against."""
        return OpenSources(self.open_data, self.seed, _TRAINED_STREAM)

    @property
    def chosen_on(self) -> OpenSources:
        """The open set to choose a checkpoint on."""
        return OpenSources(self.validation_open_data, self.seed, _CHOOSING_STREAM)


SMOKE: dict[str, Any] = {
    "max_train_steps": 6,
    "lr_warmup_steps": 2,
    "train_batch_size": 16,
    "checkpointing_steps": 3,
    "save_images_steps": 3,
    "logging_steps": 1,
    "hidden": (16, 8),
    "generator_hidden": (8, 8),
    "latent": 4,
    "attack_steps": 2,
    "validation_images": 12,
    "open_images": 48,
}


def parse_arguments(argv: Sequence[str] | None = None) -> AtdConfig:
    """Read `--config FILE`, `--smoke` and the flags, which win over the file."""
    return parse_config(
        AtdConfig,
        argv,
        prog="python -m diffad.atd.train",
        description="Train ATD. --config FILE reads a YAML file, --smoke shrinks everything to end in under a "
        "minute; the flags below override both.",
        presets={"smoke": SMOKE},
    )
