"""From run folders to rows, and to the files of `results/PRESET/`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.checked import checked
from common.recorded import summary, with_recorded
from common.tables import Row, keep, rows_of
from plan import Plan
from presets import ADVERSARIAL, CLEAN, HELD_OUT, SCORES, TRAININGS
from sections import tables

from certify.files import write_json, write_text

KEPT = ("manifest.json", "images.parquet")
LOGGED = (
    "step",
    "loss",
    "tries",
    "acceptance",
    "cap_hits",
    "clamped_share",
    "attack_gain",
    "samples_per_second",
)


def runs_of(plan: Plan, name: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield experiment, variant and run folder of everything that is planned for a problem and a seed."""
    if plan.chosen(name):
        yield "choice", HELD_OUT, plan.label(name, HELD_OUT, seed)
    for variant in (ADVERSARIAL, CLEAN):
        label = plan.label(name, variant, seed)
        yield "main", variant, label
        for part in ("certified", "published", "linf", "l2"):
            yield part, variant, f"{label}-{part}"
    for experiment, variants in TRAININGS.items():
        for variant in variants:
            yield experiment, variant, plan.label(name, variant, seed)
    for score in SCORES:
        yield "scores", score, plan.label(name, f"score-{score}", seed)


def collect(plan: Plan) -> list[Row]:
    """Return the AUROC rows of every run of the plan that is there."""
    rows: list[Row] = []
    for name, problem in plan.problems.items():
        for seed in plan.seeds:
            for experiment, variant, label in runs_of(plan, name, seed):
                if (plan.folder(label) / "summary.json").is_file():
                    where = {"run": label, "problem": name, "family": problem.family, "variant": variant}
                    where |= {"seed": seed, "experiment": experiment}
                    rows += [{**where, **row} for row in rows_of(plan.folder(label))]
    return rows


def trainings(plan: Plan) -> dict[str, Row]:
    """Return of every training the last line of its log, without the losses of each kind."""
    found: dict[str, Row] = {}
    for file in sorted((plan.runs / "networks").glob("*/log.jsonl")):
        line = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
        found[file.parent.name] = {key: line[key] for key in LOGGED if key in line}
    return found


def choices(plan: Plan) -> dict[str, Any]:
    """Return how the radius of each problem was chosen, or that it was given."""
    found: dict[str, Any] = {}
    for name in plan.problems:
        file = plan.choice(name)
        if not plan.chosen(name):
            found[name] = {"eps": plan.radius(name), "given": True}
        elif file.is_file():
            held_out = plan.problems[name].held_out
            found[name] = {
                **json.loads(file.read_text(encoding="utf-8")),
                "normal_class": held_out[held_out.index("--normal_class") + 1],
            }
    return found


def restore_choices(plan: Plan, output: Path) -> None:
    """Put the recorded choice of a radius where the plan looks for it, unless it chose anew."""
    for name, choice in summary(output, "choices", {}).items():
        if name in plan.problems and plan.chosen(name) and not plan.choice(name).is_file():
            write_json(plan.choice(name), {key: choice[key] for key in choice if key != "normal_class"})


def write_results(plan: Plan, output: Path) -> str:
    """Write `summary.json`, `table.md` and what backs them into the folder; return the table.

    What the folder holds of other runs stays.
    """
    rows = with_recorded(collect(plan), output)
    chosen = {**summary(output, "choices", {}), **choices(plan)}
    logs = {**summary(output, "trainings", {}), **trainings(plan)}
    write_json(output / "summary.json", {"choices": chosen, "trainings": logs, "rows": rows})
    labels = dict.fromkeys(row["run"] for row in rows)
    for label in labels:
        keep(plan.folder(label), output / "runs" / label, KEPT)
    for label in logs:
        keep(plan.runs / "networks" / label, output / "networks" / label, ("manifest.json",))
    text = "\n".join([tables(rows, chosen, logs), checked(output, labels)])
    write_text(output / "table.md", text)
    return text
