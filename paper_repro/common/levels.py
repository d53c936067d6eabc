"""Certified and attacked accuracy of one smoothed classifier, kept in a file, and the table over several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.classifiers import Logits, attacked_accuracy, certify_classifier

from certify import floor_text
from certify.checks import InputError
from certify.files import write_json, write_text
from diffad.backbones.labelled import LabelledSplit
from diffad.manifest import build_manifest, now

RADII = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # L2, of the certified accuracies


@dataclass(frozen=True)
class Budget:
    """Test images, draws that choose and that certify, attacked radii, steps and draws a step, error of an image."""

    limit: int
    n0: int
    n: int
    attacked: tuple[float, ...]
    attack_steps: int
    eot: int
    alpha: float = 0.001
    seed: int = 0


@dataclass(frozen=True)
class Level:
    """Accuracy certified and attacked at L2 radii, how many certified images an attack broke, and on what data."""

    name: str
    certified: Mapping[float, float]
    attacked: Mapping[float, float]
    broken: int
    images: int
    data: str


def measured(name: str, logits: Logits, split: LabelledSplit, sigma: float, budget: Budget) -> Level:
    """Certify and attack the smoothed classifier on the first test images."""
    test = split.test.first(budget.limit)
    options: dict[str, Any] = {"sigma": sigma, "seed": budget.seed, "batch_size": min(250, budget.n)}
    certified = certify_classifier(
        logits, test.images, n0=budget.n0, n=budget.n, alpha=budget.alpha, **options
    )
    spent = {"steps": budget.attack_steps, "eot": budget.eot, "n": budget.n}
    attacked = {
        radius: attacked_accuracy(logits, test.images, test.labels, certified, eps=radius, **spent, **options)
        for radius in budget.attacked
    }
    return Level(
        name=name,
        certified=dict(zip(RADII, certified.accuracy(test.labels, RADII), strict=True)),
        attacked={radius: accuracy for radius, (accuracy, _) in attacked.items()},
        broken=sum(broken for _, broken in attacked.values()),
        images=len(test),
        data=split.fingerprint(),
    )


def recorded(
    folder: Path, name: str, options: Mapping[str, Any], compute: Callable[[], Level], *, again: bool = False
) -> None:
    """Compute what is missing: `FOLDER/NAME.json` holds the level and its manifest; new options make it anew."""
    path = folder / f"{name}.json"
    wanted = json.loads(json.dumps(options))
    if not again and path.is_file() and json.loads(path.read_text(encoding="utf-8"))["options"] == wanted:
        return
    started = now()
    found = compute()
    manifest = build_manifest(
        "paper_repro",
        wanted,
        data={"name": "digits", "fingerprint": found.data},
        detectors={},
        seeds={"all": int(wanted["budget"]["seed"])},
        started=started,
    )
    write_json(path, {"options": wanted, **asdict(found), "manifest": manifest})


def print_results(folder: Path, names: Sequence[str]) -> None:
    """Write `table.md` and print it.

    Raises:
        InputError: where an attack broke a certified image, or the certified accuracy is above the attacked one.
    """
    levels = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    attacked = sorted({radius for level in levels for radius in level["attacked"]}, key=float)
    heads = [f"certified {radius:g}" for radius in RADII] + [f"attacked {radius}" for radius in attacked]
    lines = [f"| | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    for level in levels:
        cells = [floor_text(level["certified"][str(float(radius))]) for radius in RADII]
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
