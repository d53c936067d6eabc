"""Configuration of the training of COBRA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from certify.checks import InputError, check_choice
from diffad.attacks.threat import Norm, ThreatModel
from diffad.backbones.resnet import Stem
from diffad.cobra.adversary import Adversary, Start
from diffad.cobra.crafting import STRATEGIES, Crafting
from diffad.cobra.detector import Embedding, ScoreKind
from diffad.cobra.losses import CONTRASTIVE, PAIRED, LossName, LossOptions
from diffad.config import parse_config
from diffad.data.protocols import PROTOCOLS
from diffad.training.data import DataOptions

# Options read once the network is trained: they may change when a run is resumed, and when a finished one is repeated.
AFTER_TRAINING = frozenset({"score", "embedding"})


@dataclass(frozen=True, kw_only=True)
class CobraConfig(DataOptions):
    """Train the network of COBRA against an attacker, on normal images and pseudo-anomalies crafted from them."""

    output_dir: str = "runs/cobra"
    """Folder of the checkpoints, the logs, the filter and the detector."""
    random_flip: bool = False
    """Light views may mirror left to right (Algorithm 1 does; digits do not bear it)."""

    width: int = 64
    """Channels of the first stage of the ResNet; 64 is ResNet-18."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Basic blocks of each stage."""
    stem: Stem = "small"
    """small: full size, for images of about 32 pixels; imagenet: a quarter of the size."""
    embedding_size: int = 128
    """Length of the projection's output."""

    losses: tuple[LossName, ...] = ("additive", "classification")
    """What is minimised, summed: nt_xent, supcon, opposite, paper_clamped, additive, classification."""
    classification_weight: float = 1.0
    """Weight of the classification loss; the others have 1."""
    temperature: float = 0.5
    """Of the contrastive losses."""
    floor: float = 1e-2
    """Least numerator of paper_clamped."""
    opposite_weight: float = 1.0
    """Weight of the opposite pairs in additive."""
    head: Literal["binary", "rotations"] = "binary"
    """binary: normal or pseudo-anomaly; rotations: which quarter turn, without pseudo-anomalies, as the released code
    does on images without defects. It has no opposite pairs."""

    crafting: str = "paper"
    """How pseudo-anomalies are made: a key of diffad.cobra.crafting.STRATEGIES (paper, no_filter, released_rotation,
    released_cutpaste, released_filter, cutpaste, csi_rotation)."""
    transforms: tuple[str, ...] = ()
    """Hard transforms to choose from; empty: those of the strategy."""
    level: float | None = None
    """P-value below which a draw is accepted; None: that of the strategy."""
    cap: int | None = None
    """Draws of a pseudo-anomaly, at most; None: that of the strategy."""
    filter: str | None = None
    """Folder of a filter fitted before, for these very normals; None: one is fitted, into output_dir/filter."""
    filter_steps: int = 300
    """Training steps of its classifier, which has the width and blocks of filter_width and filter_blocks."""
    filter_width: int = 16
    filter_blocks: tuple[int, ...] = (1, 1, 1)
    filter_components: int = 1
    """Gaussians of its mixture; the paper does not say how many."""
    filter_pca: int = 64
    """Principal components of the classifier's features that the mixture sees, at most."""
    filter_held_out: float = 0.25
    """Share of the training images that set its p-values and are not fitted by it; the encoder trains on all."""

    adversarial: bool = True
    """Attack a third view; false, or eps 0, trains the clean twin."""
    norm: Norm = "linf"
    """Of the attacker."""
    eps: str = "4/255"
    """Size of the attack, [0, 1] pixel units, a number or a fraction."""
    attack_steps: int = 10
    """Gradient steps of the attacker, 2.5 eps / steps each."""
    attack_start: Start = "random"
    """random: uniform in the ball (released code); clean: at the view (Algorithm 1)."""

    score: ScoreKind = "cosine"
    """Score of the detector: cosine, classifier, sum, ensemble_released."""
    embedding: Embedding = "projection"
    """What the cosine compares: projection, G(F(x)), or features, F(x)."""

    optimizer: Literal["adamw", "lars"] = "lars"
    learning_rate: float = 1.0
    """Its peak, reached after the warm-up; 1.0 suits LARS."""
    train_batch_size: int = 128
    """Normal images a process and a backward pass; as many pseudo-anomalies come with them."""
    use_ema: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range, and losses, head and score that do not go together."""
        super().__post_init__()
        for name in (
            "width",
            "embedding_size",
            "filter_steps",
            "filter_width",
            "filter_components",
            "filter_pca",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least 1")
        if self.attack_steps < 1:
            raise InputError(f"attack_steps: got {self.attack_steps}, need at least 1")
        if not self.losses or len(set(self.losses)) < len(self.losses):
            raise InputError(f"losses: got {list(self.losses)}; need at least one, each once")
        if not self.classification_weight > 0:
            raise InputError(
                f"classification_weight: got {self.classification_weight}, need a value above 0; leave "
                "classification out of losses to train without it"
            )
        if not 0 < self.filter_held_out < 1:
            raise InputError(f"filter_held_out: got {self.filter_held_out}, need a share between 0 and 1")
        if self.head == "rotations" and PAIRED & set(self.losses):
            raise InputError(
                f"losses: {', '.join(sorted(PAIRED & set(self.losses)))} need opposite pairs, which --head rotations "
                "has none of; use nt_xent or supcon, and classification"
            )
        check_choice(self.protocol, PROTOCOLS, "protocol")
        check_choice(self.crafting, tuple(STRATEGIES), "crafting")
        _ = self.loss_options, self.threat, self.craft  # which check what they are made of
        check_score(self.score, self.embedding, self.losses)

    @property
    def threat(self) -> ThreatModel:
        """The attacker's threat model."""
        return ThreatModel.parse(self.norm, self.eps)

    @property
    def adversary(self) -> Adversary | None:
        """The attacker; None for the clean twin."""
        if not self.adversarial or self.threat.eps == 0:
            return None
        return Adversary(self.threat, self.attack_steps, self.attack_start)

    @property
    def loss_options(self) -> LossOptions:
        """Constants of the losses."""
        return LossOptions(self.temperature, self.floor, self.opposite_weight)

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each loss."""
        return {name: self.classification_weight if name == "classification" else 1.0 for name in self.losses}

    @property
    def craft(self) -> Crafting:
        """How pseudo-anomalies are made: the strategy with what was changed."""
        changes: dict[str, Any] = {
            "level": self.level,
            "cap": self.cap,
            "transforms": self.transforms or None,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(STRATEGIES[self.crafting], **given)

    @property
    def needs_filter(self) -> bool:
        """Whether pseudo-anomalies are filtered."""
        return self.head == "binary" and self.craft.level is not None


def check_score(score: str, embedding: str, losses: Sequence[str]) -> None:
    """Refuse a score that reads a head which these losses have not trained."""
    if score != "cosine" and "classification" not in losses:
        raise InputError(f"score: {score} needs a trained classifier; add classification to losses")
    if embedding == "projection" and score != "classifier" and not CONTRASTIVE & set(losses):
        raise InputError(
            "embedding: losses without a contrastive one leave the projection untrained; use --embedding features or "
            "--score classifier"
        )


SMOKE: dict[str, Any] = {
    "max_train_steps": 6,
    "lr_warmup_steps": 2,
    "train_batch_size": 16,
    "checkpointing_steps": 3,
    "logging_steps": 1,
    "width": 4,
    "blocks": (1, 1),
    "embedding_size": 16,
    "attack_steps": 2,
    "filter_steps": 25,
    "filter_width": 4,
    "filter_blocks": (1, 1),
    "filter_pca": 8,
}


def parse_arguments(argv: Sequence[str] | None = None) -> CobraConfig:
    """Read `--config FILE`, `--smoke` and the flags, which win over the file."""
    return parse_config(
        CobraConfig,
        argv,
        prog="python -m diffad.cobra.train",
        description="Train COBRA. --config FILE reads a YAML file, --smoke shrinks everything to end in under a "
        "minute; the flags below override both.",
        presets={"smoke": SMOKE},
    )
