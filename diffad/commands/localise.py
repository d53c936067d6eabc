"""`diffad localise`: how well anomaly maps find the masks of defects, clean, attacked and certified."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certify import console
from certify.checks import InputError
from certify.files import write_bytes, write_json
from certify.text import floor_text
from diffad.config import parse_config
from diffad.data import ImageSet
from diffad.localisation import MAX_FPR, Maps, check_max_fpr
from diffad.localised import CLEAN, localisation_row, masks_of, threats
from diffad.manifest import build_manifest, describe_data, merge_manifests, now
from diffad.metric_rows import Row
from diffad.precision import exact_float32
from diffad.ranking import HALF
from diffad.results import MANIFEST
from diffad.sources import SourceOptions, load_sources, parse_radii
from diffad.subject import folder_name
from diffad.tables import NOTHING, radius_text

TABLE = "localisation.json"
METRICS = {"pixel AUROC": "pixel_auroc", "PRO": "pro", "image AUROC": "image_auroc"}


@dataclass(frozen=True, kw_only=True)
class LocaliseConfig(SourceOptions):
    """Pixel AUROC and PRO of a detector's anomaly maps, for data with masks of its defects."""

    attack: Path | None = None
    """Run folder of `diffad attack` on this detector and these images: judge the maps of the attacked images too."""
    radii: str | None = None
    """L2 radii to certify without noise, comma separated, where the map has a proven Lipschitz constant."""
    max_fpr: float = MAX_FPR
    """False-positive rate of pixels up to which PRO is integrated."""
    resamples: int = 1000
    """Of the images, for the intervals."""
    batch_size: int = 32
    device: str = "cpu"
    seed: int = 0
    """Key of the resamples."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        config = parse_config(
            LocaliseConfig, argv, prog="diffad localise", description=str(LocaliseConfig.__doc__)
        )
        localise(config, list(sys.argv[2:] if argv is None else argv))

    return console.run(command)


@exact_float32()
def localise(config: LocaliseConfig, argv: Sequence[str]) -> Path:
    """Judge the maps as `config` says, write localisation.json, manifest and picture; return the folder."""
    started = now()
    check_max_fpr(config.max_fpr)
    detector, split = load_sources(config)
    masks_of(split.test)  # no mask, no work
    detector = detector.to(config.device)
    radii = () if config.radii is None else parse_radii(config.radii)
    cases = threats(
        detector, split, attack=config.attack, radii=radii, batch_size=config.batch_size, device=config.device
    )
    folder = config.output_dir or Path("runs") / "-".join(
        ["localise", folder_name(detector.row_name), split.name.replace(":", "-").replace("/", "-")]
    )
    options: dict[str, Any] = {"max_fpr": config.max_fpr, "resamples": config.resamples, "seed": config.seed}
    rows = [localisation_row(detector, split.test, case, **options) for case in cases]
    manifest = build_manifest(
        "diffad localise",
        {**asdict(config), "arguments": detector.config()},
        data=describe_data(split),
        detectors={detector.row_name: detector.fingerprint()},
        seeds={"bootstrap": config.seed},
        started=started,
        device=config.device,
        argv=["diffad", "localise", *argv],
    )
    write_rows(folder, manifest, rows)
    picture = folder / f"{folder_name(detector.row_name)}.png"
    seen = {title_of(case.columns): case.maps for case in cases if case.columns["condition"] != "certified"}
    write_bytes(picture, draw(split.test, seen))
    print(json.dumps({"folder": str(folder), "localisation": rows}) if config.json else format_rows(rows))
    console.say(f"\nfolder: {folder}   picture: {picture}")
    return folder


def write_rows(folder: Path, manifest: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write rows and manifest; other rows of the same data stay, those of the same threat are replaced."""
    kept: list[Row] = []
    if (folder / TABLE).is_file():
        if not (folder / MANIFEST).is_file():
            raise InputError(f"--output_dir: {folder} holds {TABLE} without {MANIFEST}; use another folder")
        before = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = merge_manifests(before, manifest)
        written = {_key(row) for row in rows}
        stored = json.loads((folder / TABLE).read_text(encoding="utf-8"))["localisation"]
        kept = [row for row in stored if _key(row) not in written]
    elif (folder / MANIFEST).is_file():
        raise InputError(f"--output_dir: {folder} holds a run of another command; use another folder")
    write_json(folder / TABLE, {"data": manifest["data"]["name"], "localisation": [*kept, *rows]})
    write_json(folder / MANIFEST, manifest)


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("detector", "score_name", *CLEAN))


def title_of(columns: Row) -> str:
    """Name a threat in few words: `clean`, `attacked, Linf 2/255`, `certified, L2 0.1`."""
    if columns["condition"] == "clean":
        return "clean"
    word = {"attack": "attacked", "certified": "certified"}[columns["condition"]]
    norm = {"l2": "L2", "linf": "Linf"}[columns["norm"]]
    return f"{word}, {norm} {radius_text(columns['radius'], columns['norm'])}"


def draw(test: ImageSet, maps: Mapping[str, Maps]) -> bytes:
    """Draw one normal and one image of each kind of defect, as a PNG file."""
    from diffad.plots import localisation_figure, png

    places = shown_images(test)
    names = ["normal" if test.labels[place] == 0 else test.defects[place] for place in places]
    shown = {f"map\n{title}": found[places] for title, found in maps.items()}
    return png(localisation_figure(test.images[places].numpy(), masks_of(test)[places], shown, names))


def shown_images(test: ImageSet) -> list[int]:
    """Return the first normal image, and of each kind of defect the image whose defect has the median area.

    The rule looks at masks only, so that nobody picks the pretty maps.
    """
    areas, defects = masks_of(test).sum((1, 2)), np.array(test.defects)
    anomalous = test.labels.numpy() == 1
    places = [int(np.flatnonzero(~anomalous)[0])]
    for kind in sorted(set(defects[anomalous].tolist())):
        own = np.flatnonzero(anomalous & (defects == kind))
        places.append(int(own[np.argsort(areas[own], kind="stable")[len(own) // 2]]))
    return places


def format_rows(rows: Sequence[Row]) -> str:
    """Return a table for people, intervals in brackets."""
    first = rows[0]
    lines = [
        " ".join(dict.fromkeys(name for name in (first["detector"], first["score_name"]) if name))
        + f", {first['normals']} normal + {first['anomalies']} anomalous images, {first['regions']} defective regions, "
        f"{first['defective_share']:.2%} of the pixels",
        f"{'':26}" + "".join(f"{title:>22}" for title in METRICS),
    ]
    for row in rows:
        cells = "".join(f"{cell_of(row, name):>22}" for name in METRICS.values())
        lines.append(f"{title_of(row):26}{cells}")
    lines.append(
        f"PRO up to a false-positive rate of {first['max_fpr']:g} (chance {first['max_fpr'] / 2:g}); in brackets "
        f"{first['level']:.0%}, bootstrap over images"
    )
    conditions = {row["condition"] for row in rows}
    if "attack" in conditions:
        lines.append("Attacked: normals and anomalies, by an attack of the image score, not of the map.")
    if "certified" in conditions:
        lines.append("Certified: no L2 change of all images by so much leaves less; without noise, floored.")
    return "\n".join(lines)


def cell_of(row: Row, name: str) -> str:
    """Return a metric with its interval; a certified one floored, and `nothing certified` at or below chance."""
    low, high = row[f"{name}_interval"]
    if row["condition"] != "certified":
        return f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"
    chance = row["max_fpr"] / 2 if name == "pro" else HALF
    value = floor_text(row[name])
    return NOTHING if float(value) <= chance else f"{value} [{low:.3f}, {high:.3f}]"
