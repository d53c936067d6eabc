"""Certified and attacked accuracy of a smoothed classifier: the step that keeps it in a file, the table of several."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.classifiers import Logits, attacked_accuracy, certify_classifier
from common.steps import Step
from common.tables import keep

from certify import floor_text
from certify.checks import InputError
from certify.console import run as run_command
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
    attacked = attacked_accuracy(
        logits, test.images, test.labels, certified, radii=budget.attacked, **spent, **options
    )
    return Level(
        name=name,
        certified=dict(zip(RADII, certified.accuracy(test.labels, RADII), strict=True)),
        attacked={radius: accuracy for radius, (accuracy, _) in attacked.items()},
        broken=sum(broken for _, broken in attacked.values()),
        images=len(test),
        data=split.fingerprint(),
    )


def level_step(name: str, options: Mapping[str, Any], runs: Path) -> Step:
    """Return the step that measures a level of these options, by `measures.py` beside the script (see `measure`)."""
    words = ("--options", json.dumps(options), "--output", str(level_file(runs, name)))
    return Step(name, "measure", words, runs / "done")


def level_file(folder: Path, name: str) -> Path:
    """Return the file of a level in a folder of runs or of results."""
    return folder / "levels" / f"{name}.json"


def measure(argv: Sequence[str], compute: Callable[[dict[str, Any], Path], Level]) -> int:
    """Run the step of a level: write what `compute` finds, with its options and manifest; return the exit code.

    Args:
        argv: as `level_step` makes them.
        compute: from the options and the folder of the runs.
    """
    parser = argparse.ArgumentParser(description="One level of a smoothed classifier.")
    parser.add_argument("--options", type=json.loads, required=True, help="JSON")
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args(argv)

    def work() -> None:
        started = now()
        found = compute(asked.options, asked.output.parents[1])
        manifest = build_manifest(
            "paper_repro",
            asked.options,
            data={"name": "digits", "fingerprint": found.data},
            detectors={},
            seeds={"all": int(asked.options["budget"]["seed"])},
            started=started,
        )
        write_json(asked.output, {"options": asked.options, **asdict(found), "manifest": manifest})

    return run_command(work)


def write_levels(runs: Path, output: Path, names: Sequence[str]) -> str:
    """Keep the levels that were measured, write `table.md` of all that are there, and return it.

    Raises:
        InputError: where an attack broke a certified image, or the certified accuracy is above the attacked one.
    """
    for name in names:
        keep(level_file(runs, name).parent, level_file(output, name).parent, [f"{name}.json"])
    files = [level_file(output, name) for name in names if level_file(output, name).is_file()]
    levels = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    text = table(levels)
    write_text(output / "table.md", text)
    for level in levels:
        above = [r for r, value in level["attacked"].items() if value < level["certified"].get(r, 0.0)]
        if level["broken"] or above:
            raise InputError(
                f"{level['name']}: {level['broken']} certified images were broken, certified above attacked at "
                f"{above or 'no radius'}; one of the two is wrong"
            )
    return text


def table(levels: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table, a line a level: accuracy certified at each radius, and attacked."""
    attacked = sorted({radius for level in levels for radius in level["attacked"]}, key=float)
    heads = [f"certified {radius:g}" for radius in RADII] + [f"attacked {radius}" for radius in attacked]
    lines = [f"| | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 1)]
    for level in levels:
        cells = [floor_text(level["certified"][str(float(radius))]) for radius in RADII]
        cells += [
            f"{level['attacked'][radius]:.3f}" if radius in level["attacked"] else "" for radius in attacked
        ]
        lines.append(f"| {level['name']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
