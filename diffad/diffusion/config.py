"""Configuration of the training of a diffusion detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from certify.checks import InputError
from diffad.config import parse_config
from diffad.diffusion.scores import ScoreName
from diffad.training.data import DataOptions

# Options read once the network is trained: they may change when a run is resumed, and when a finished one is repeated.
AFTER_TRAINING = frozenset(
    {
        "select_sigmas",
        "select_scores",
        "patch_sizes",
        "select_radii",
        "select_images",
        "select_draws",
        "draws",
        "autocast_scoring",
    }
)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataOptions):
    """Train a diffusion model of normal images, the network of the diffusion detector."""

    random_flip: bool = False
    """Mirror half of the images left to right."""
    random_vertical_flip: bool = False
    """Mirror half of the images top to bottom."""
    random_shift: int = 0
    """Shift each image by up to so many pixels along each axis; the border is repeated."""

    block_out_channels: tuple[int, ...] = (32, 64)
    """Channels of each level of the UNet, multiples of norm_num_groups."""
    layers_per_block: int = 1
    attention_levels: tuple[int, ...] = ()
    """Levels with self-attention; 0 is the full resolution of the UNet."""
    space_to_depth: int = 1
    """Side of the blocks of pixels that become channels before the first convolution: cheaper, same L2."""
    norm_num_groups: int = 32
    dropout: float = 0.0

    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """What the network predicts: the noise, v, or the clean image."""
    ddpm_num_steps: int = 1000
    ddpm_beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    min_sigma: float | None = None
    """Train only timesteps with at least this noise, in [0, 1] pixel units; None: from the first."""
    max_sigma: float | None = None
    """Train only timesteps up to this noise, in [0, 1] pixel units; None: to the last."""
    loss_weighting: Literal["prediction", "clean"] = "prediction"
    """Where squared errors count equally: in what the network predicts, or in the clean image it implies."""

    select_sigmas: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    """Noise of the detector: those to choose from on validation data, pixel units."""
    select_scores: tuple[ScoreName, ...] = ("l2", "root_max", "patch_max")
    """Scores to choose from."""
    patch_sizes: tuple[int, ...] = (9,)
    """Windows of the patch scores to choose from."""
    select_radii: tuple[float, ...] = (0.1, 0.25)
    """L2 radii whose certified AUROC on validation data decides the choice."""
    select_images: int = 50
    """Validation images of each label used for the choice, at most."""
    select_draws: int = 300
    """Noise draws spent on each of them; few are enough where radius 0 decides."""
    draws: int = 8
    """Stored noise draws that the detector's plain score averages over."""
    autocast_scoring: bool = False
    """Score in bfloat16: about twice as fast on processors and GPUs that have it."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        super().__post_init__()
        low, high = self.min_sigma or 0.0, self.max_sigma or float("inf")
        if low < 0 or high <= 0 or low > high:
            raise InputError(
                f"min_sigma, max_sigma: got {self.min_sigma}, {self.max_sigma}, need 0 < min <= max"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout: got {self.dropout}, need a value from 0 to below 1")
        if any(channels % self.norm_num_groups for channels in self.block_out_channels):
            raise InputError(
                f"block_out_channels: got {list(self.block_out_channels)}, need multiples of norm_num_groups "
                f"({self.norm_num_groups})"
            )
        for name in ("ddpm_num_steps", "layers_per_block", "space_to_depth", "norm_num_groups"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: got {getattr(self, name)}, need at least 1")
        if self.random_shift < 0:
            raise InputError(f"random_shift: got {self.random_shift}, need at least 0")


SMOKE: dict[str, Any] = {
    "max_train_steps": 30,
    "lr_warmup_steps": 5,
    "train_batch_size": 16,
    "checkpointing_steps": 10,
    "block_out_channels": (32, 32),
    "layers_per_block": 1,
    "attention_levels": (),
    "select_sigmas": (0.25,),
    "patch_sizes": (5,),
    "select_images": 8,
    "draws": 2,
}


def parse_arguments(argv: Sequence[str] | None = None) -> TrainConfig:
    """Read `--config FILE`, `--smoke` and the flags, which win over the file."""
    return parse_config(
        TrainConfig,
        argv,
        prog="train_ddpm.py",
        description="Train the network of the diffusion detector. --config FILE reads a YAML file, --smoke "
        "shrinks everything to end in under a minute; the flags below override both.",
        presets={"smoke": SMOKE},
    )
