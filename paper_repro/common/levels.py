"""Certified and attacked accuracy of one smoothed classifier, kept in a file, and the table over several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from certify import floor_text
from certify.checks import InputError
from certify.files import write_json, write_text
from diffad.manifest import build_manifest, now


@dataclass(frozen=True)
class Level:
    """Accuracy certified and attacked at L2 radii, how many certified images an attack broke, and on what data."""

    name: str
    certified: Mapping[float, float]
    attacked: Mapping[float, float]
    broken: int
    images: int
    data: str


def recorded(folder: Path, name: str, options: Mapping[str, Any], compute: Callable[[], Level]) -> None:
    """Compute what is missing: `FOLDER/NAME.json` holds the level and its manifest; new options make it anew."""
    path = folder / f"{name}.json"
    wanted = json.loads(json.dumps(options))
    if path.is_file() and json.loads(path.read_text(encoding="utf-8"))["options"] == wanted:
        return
    started = now()
    found = compute()
    manifest = build_manifest(
        "paper_repro",
        wanted,
        data={"name": "digits", "fingerprint": found.data},
        detectors={},
        seeds={"all": int(wanted["seed"])},
        started=started,
    )
    write_json(path, {"options": wanted, **asdict(found), "manifest": manifest})


def print_results(folder: Path, names: Sequence[str], radii: Sequence[float]) -> None:
    """Write `table.md` and print it.

    Raises:
        InputError: where an attack broke a certified image, or the certified accuracy is above the attacked one.
    """
    levels = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    attacked = sorted({radius for level in levels for radius in level["attacked"]}, key=float)
    heads = [f"certified {radius:g}" for radius in radii] + [f"attacked {radius}" for radius in attacked]
    lines = [f"| | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    for level in levels:
        cells = [floor_text(level["certified"][str(float(radius))]) for radius in radii]
        cells += [
            f"{level['attacked'][radius]:.3f}" if radius in level["attacked"] else "" for radius in attacked
        ]
        lines.append(f"| {level['name']} | {' | '.join(cells)} |")
    write_text(folder / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    for level in levels:
        above = [r for r, value in level["attacked"].items() if value < level["certified"].get(r, 0.0)]
        if level["broken"] or above:
            raise InputError(
                f"{level['name']}: {level['broken']} certified images were broken, certified above attacked at "
                f"{above or 'no radius'}; one of the two is wrong"
            )
