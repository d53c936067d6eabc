"""What every training on normal images asks about its data, and reading them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from diffad.data import DataSplit, load_data
from diffad.training.options import TrainingOptions


@dataclass(frozen=True, kw_only=True)
class DataOptions(TrainingOptions):
    """Options of a training on what a protocol calls normal."""

    data: Annotated[str, tyro.conf.arg(aliases=["--dataset_name"])] = "digits"
    """Data set: digits, textures:FAMILY, mvtec:PATH, folder:PATH, mnist, ..."""
    normal_class: str | None = None
    """The class taken as normal, where the data set has classes; several under ood, comma separated."""
    resolution: int | None = None
    """Height and width to resize to; None: as the data set has it."""
    in_channels: int | None = None
    """1 for grey, 3 for colour; None: as the data set has it."""
    protocol: Literal["one_class", "unlabeled_multiclass", "ood"] = "one_class"
    """What is normal: one class, or all of the data set, with other data sets anomalous."""
    outliers: tuple[str, ...] = ()
    """Data sets that are anomalous under the last two protocols; seen in testing alone."""


def read_split(config: DataOptions) -> DataSplit:
    """Read the images that the options name."""
    return load_data(
        config.data,
        normal_class=config.normal_class,
        resolution=config.resolution,
        channels=config.in_channels,
        protocol=config.protocol,
        outliers=config.outliers,
        seed=config.seed,
    )
