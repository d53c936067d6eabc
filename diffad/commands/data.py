"""`diffad data SPEC`: the parts of a data set, its fingerprint and probe, and sheets of pictures to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image, ImageDraw, ImageFont

from certify import console
from certify.checks import InputError
from certify.files import write_atomic
from diffad.data import DataSplit, ImageSet, load_data
from diffad.data.sheet import contact_sheet
from diffad.data.transforms.sheet import transform_sheet
from diffad.manifest import describe_data
from diffad.sources import default_class, split_names
from diffad.tables import align

COLUMNS, ROWS = 10, 2  # of each kind of image on the sheet
TITLE = 19  # pixels of the line above each kind of image
# test normals that look like a train image, beyond the share of anomalies that do: worth a warning
LEAK = 0.25
USES = (  # of the parts, in their order
    "fitted on",
    "the threshold, held out of your training images",
    "choices: held-out normals, and synthetic defects planted in them",
    "what the tables are about",
)
SHEET_PIXELS = 64  # smaller images are enlarged by a whole number to about this size


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Describe a data set: its four parts, fingerprint and near-duplicate probe."""

    spec: Annotated[str, tyro.conf.Positional]
    """digits, textures:FAMILY, mvtec:PATH, folder:PATH, mnist, ..."""
    normal_class: str | None = None
    """The class taken as normal, where the data set has classes; under ood several, comma separated."""
    protocol: str = "one_class"
    """one_class, unlabeled_multiclass or ood."""
    outliers: str | None = None
    """Data sets that are anomalous under the last two, comma separated; rest: the other classes of the same set."""
    resolution: int | None = None
    """Height and width to resize to; None: as the data set has it."""
    seed: int = 0
    """Seed of the split and of the synthetic defects."""
    limit: int | None = None
    """Test images of each label, at most; None: all."""
    sheet: Path | None = None
    """PNG file for a sheet of validation and test images; defects with known masks are outlined."""
    transforms: Path | None = None
    """PNG file for a sheet of training images under every hard transform, and as light views."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        describe(tyro.cli(DataConfig, prog="diffad data", args=argv, use_underscores=True))

    return console.run(command)


def describe(config: DataConfig) -> None:
    """Print what there is to know about the split; draw the sheets."""
    for name, path in (("sheet", config.sheet), ("transforms", config.transforms)):
        if path is not None and path.suffix.lower() != ".png":
            raise InputError(f"--{name}: got {path}, need a name that ends in .png")
    split = load_data(
        config.spec,
        normal_class=default_class(config.spec, config.normal_class, config.protocol),
        protocol=config.protocol,
        outliers=split_names(config.outliers) or (),
        resolution=config.resolution,
        seed=config.seed,
        limit=config.limit,
    )
    if config.sheet is not None:
        _write(config.sheet, sheet_of(split))
    if config.transforms is not None:
        shown = split.train.images[:COLUMNS]
        _write(config.transforms, transform_sheet(shown, seed=config.seed, zoom=_zoom(split)))
    description = {
        **describe_data(split),
        "parts": {name: count(part) for name, part in split.parts().items()},
    }
    print(json.dumps(description) if config.json else text_of(description))


def count(part: ImageSet) -> dict[str, Any]:
    """Return the images of a part: normals, anomalies, and how many of each kind of defect."""
    kinds, numbers = np.unique(part.anomalies().defects, return_counts=True)
    return {
        "normals": int((part.labels == 0).sum()),
        "anomalies": int((part.labels == 1).sum()),
        "defects": {str(kind): int(number) for kind, number in zip(kinds, numbers, strict=True)},
    }


def text_of(description: dict[str, Any]) -> str:
    """Return the description as people read it."""
    side, channels = description["resolution"], description["channels"]
    lines = [["part", "normals", "anomalies"]]
    for name, part in description["parts"].items():
        lines.append([name, str(part["normals"]), str(part["anomalies"])])
    table = [f"{line}   {use}" for line, use in zip(align(lines).splitlines(), ("", *USES), strict=True)]
    blocks = [
        f"{description['name']}  {side} x {side}, {'grey' if channels == 1 else 'colour'}",
        "\n".join(line.rstrip() for line in table),
    ]
    for name, part in description["parts"].items():
        if part["defects"]:
            kinds = ", ".join(f"{kind} {number}" for kind, number in part["defects"].items())
            blocks.append(f"anomalies of {name}: {kinds}")
    probe = [f"  {key:<28}{_short(value)}" for key, value in description["probe"].items()]
    blocks.append("\n".join(["probe (near-duplicates of train images in test, sizes of defects)", *probe]))
    blocks += [hint] if (hint := copies_hint(description["probe"])) else []
    blocks.append(f"fingerprint {description['fingerprint']}")
    return "\n\n".join(blocks)


def copies_hint(probe: Mapping[str, Any]) -> str | None:
    """Return a warning where far more test normals than anomalies look like a train image; None where they do not."""
    shares = [
        probe[f"near_duplicates_{kind}"] / probe[f"test_{many}"]
        for kind, many in (("normal", "normals"), ("anomalous", "anomalies"))
    ]
    if shares[0] - shares[1] <= LEAK:
        return None
    return (
        f"{shares[0]:.0%} of the test normals look like some train image, of the anomalies {shares[1]:.0%}.\n"
        "If pictures of one part, or of one session, are in both, every AUROC flatters the detector: name their\n"
        "groups in groups.json, or split by time or by part. (Small pictures of aligned objects are alike without\n"
        "being copies: look at them.)"
    )


def sheet_of(split: DataSplit) -> Image.Image:
    """Return rows of validation normals and synthetic defects, then of test normals and anomalies, under titles."""
    groups = {
        "validation, held-out normals": split.validation.normals(),
        "validation, synthetic defects (outlined)": split.validation.anomalies(),
        "test, normals": split.test.normals(),
        "test, anomalies": split.test.anomalies(),
    }
    sheets = {title: _spread(group, _zoom(split)) for title, group in groups.items()}
    width = max(sheet.width for sheet in sheets.values())
    page = Image.new("RGB", (width, sum(sheet.height + TITLE for sheet in sheets.values())), "white")
    pen, font, top = ImageDraw.Draw(page), ImageFont.load_default(TITLE - 5), 0
    for title, sheet in sheets.items():
        pen.text((2, top + 2), title, fill="black", font=font)
        page.paste(sheet, (0, top + TITLE))
        top += sheet.height + TITLE
    return page


def _spread(group: ImageSet, zoom: int) -> Image.Image:
    """At most ROWS rows of images, taken evenly over a group, so that every kind of defect has its turn."""
    number = min(len(group), ROWS * COLUMNS)
    shown = group.take(np.linspace(0, len(group) - 1, number).round().astype(int).tolist())
    return contact_sheet(shown.images, COLUMNS, masks=shown.masks, zoom=zoom)


def _zoom(split: DataSplit) -> int:
    return max(1, SHEET_PIXELS // split.resolution)


def _write(path: Path, image: Image.Image) -> None:
    write_atomic(path, image.save)
    console.say(f"written: {path} ({image.width} x {image.height})")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
