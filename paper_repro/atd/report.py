"""From run folders to rows, and to the files of `results/PRESET/`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from chains import MAIN
from common.checked import checked
from common.recorded import summary, with_recorded
from common.tables import Row, cell, keep, means
from plan import Plan
from presets import ABLATIONS, EXTRACTORS, SCORES, STANDARD, STANDARD_NO_ATTACKER

from certify.files import write_json, write_text

SIDES = ("clean", "in", "out", "both")
ATTACKED = ("classification", "detection")
MEAN = "mean"  # over the outlier sets
KEYS = ("problem", "experiment", "variant", "set", "side")
KEPT = ("manifest.json", "images.parquet")
LOGGED = ("step", "loss_discriminator", "loss_generator", "logit_inside", "logit_outside", "logit_generated",
          "grad_norm_discriminator", "grad_norm_generator", "samples_per_second")  # fmt: skip
TITLES = {
    "detectors": "Table 1: detectors on the robust and on the standard extractor, attacked by the ensemble",
    "ablations": "Table 3: ATD with one thing changed",
    "transfer": "Table 2: attacked by images crafted on the other detectors of the robust extractor",
    "classification": "Table 4: images crafted against the robust classifier, and against the detector itself",
}


def variants(experiment: str) -> tuple[str, ...]:
    """Return the rows of a table, ATD first."""
    scores = [f"{score}_{extractor}" for extractor in EXTRACTORS for score in SCORES]
    robust = [one for one in scores if one.endswith("_robust")]
    rows = {
        "detectors": scores,
        "ablations": [*ABLATIONS, STANDARD, STANDARD_NO_ATTACKER],
        "transfer": robust,
    }
    if experiment == "classification":
        return tuple(f"{one}, {target} attacked" for one in (MAIN, *robust) for target in ATTACKED)
    return (MAIN, *rows[experiment])


def runs_of(plan: Plan, name: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield experiment, variant and label of every run folder that is planned for a problem and a seed."""
    for experiment in ("detectors", "ablations", "transfer"):
        for variant in variants(experiment):
            label = plan.label(name, variant, seed)
            yield experiment, variant, f"{label}-transfer" if experiment == "transfer" else label


def rows_of(folder: Path) -> list[Row]:
    """Return the AUROC of an attack by side: the unweighted mean over the outlier sets, and each set."""
    rows: list[Row] = []
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    for row in summary["auroc"]:
        if (row["condition"] == "clean") == (row["side"] == "clean"):
            values = {MEAN: row["auroc"], **row["auroc_sets"]}
            rows += [{"set": one, "side": row["side"], "auroc": value} for one, value in values.items()]
    return rows


def classification_rows(plan: Plan, name: str, seed: int) -> list[Row]:
    """Return the rows of Table 4 of a problem and a seed that were measured.

    Images of the attack on the classification were not crafted against the detector: their condition is `elsewhere`.
    """
    rows: list[Row] = []
    for detector in (MAIN, *(f"{score}_robust" for score in SCORES)):
        label = plan.label(name, detector, seed)
        if plan.measured(label).is_file():
            for found in json.loads(plan.measured(label).read_text(encoding="utf-8"))["rows"]:
                attacked = "attack" if found["attack"] == "detection" else "elsewhere"
                shared = {
                    "variant": f"{detector}, {found['attack']} attacked",
                    "set": MEAN,
                    "measure": label,
                    "changed_class": found["changed_class"],
                }
                for side in SIDES:
                    condition = "clean" if side == "clean" else attacked
                    rows.append({**shared, "condition": condition, "side": side, "auroc": found[side]})
    return rows


def collect(plan: Plan) -> list[Row]:
    """Return the rows of every run of the plan that is there."""
    rows: list[Row] = []
    for name in plan.problems:
        for seed in plan.seeds:
            for experiment, variant, label in runs_of(plan, name, seed):
                if (plan.folder(label) / "summary.json").is_file():
                    where = {"problem": name, "experiment": experiment, "variant": variant, "seed": seed}
                    rows += [{**where, "run": label, **row} for row in rows_of(plan.folder(label))]
            shared = {"problem": name, "experiment": "classification", "seed": seed}
            rows += [{**shared, **row} for row in classification_rows(plan, name, seed)]
    changed = {row["problem"] for row in rows if row["experiment"] == "ablations" and row["variant"] != MAIN}
    return [row for row in rows if row["experiment"] != "ablations" or row["problem"] in changed]


def trainings(plan: Plan) -> dict[str, Row]:
    """Return of every training of ATD the end of its log, the largest share of zero gradients, and what was chosen."""
    found: dict[str, Row] = {}
    for file in sorted((plan.runs / "networks").glob("*/selection.json")):
        log = [
            json.loads(line) for line in (file.parent / "log.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        zero = [line["zero_gradient_share"] for line in log if "zero_gradient_share" in line]
        chosen = json.loads(file.read_text(encoding="utf-8"))["chosen"]
        found[file.parent.name] = {
            **{key: log[-1][key] for key in LOGGED if key in log[-1]},
            "largest_zero_gradient_share": max(zero) if zero else None,
            "chosen": chosen,
        }
    return found


def tables(rows: Sequence[Row], logs: dict[str, Row]) -> str:
    """Return all tables that there are rows for, in Markdown."""
    found = means(rows, KEYS)
    parts = [
        table(found, name, one) for one in dict.fromkeys(row["problem"] for row in rows) for name in TITLES
    ]
    zero = [log["largest_zero_gradient_share"] for log in logs.values()]
    known = [share for share in zero if share is not None]
    if known:
        parts.append(
            f"Largest share of gradients that were zero while crafting, in any line of any log: {max(known):.4f}\n"
        )
    return "\n".join(part for part in parts if part)


def table(found: Sequence[Row], experiment: str, problem: str) -> str:
    """Return one table of a problem: the mean over outlier sets by side, then `both` of each set."""
    own = [row for row in found if (row["problem"], row["experiment"]) == (problem, experiment)]
    if not own:
        return ""
    sets = [one for one in dict.fromkeys(row["set"] for row in own) if one != MEAN]
    heads = (
        "detector",
        "seeds",
        *SIDES,
        *(f"{one}: clean" for one in sets),
        *(f"{one}: both" for one in sets),
    )
    lines = [f"## {TITLES[experiment]}: {problem}", "", _line(*heads), "|" + "---|" * len(heads)]
    for variant in variants(experiment):
        part = {(row["set"], row["side"]): row for row in own if row["variant"] == variant}
        if part:
            cells = [cell(part.get((MEAN, side))) for side in SIDES]
            cells += [cell(part.get((one, side))) for side in ("clean", "both") for one in sets]
            lines.append(_line(variant, next(iter(part.values()))["seeds"], *cells))
    return "\n".join(lines) + "\n"


def write_results(plan: Plan, output: Path) -> str:
    """Write `summary.json`, `table.md` and what backs them into the folder; return the tables.

    What the folder holds of other runs stays.
    """
    rows = with_recorded(collect(plan), output)
    logs = {**summary(output, "trainings", {}), **trainings(plan)}
    write_json(output / "summary.json", {"trainings": logs, "rows": rows})
    labels = dict.fromkeys(row["run"] for row in rows if "run" in row)
    for label in labels:
        keep(plan.folder(label), output / "runs" / label, KEPT)
    for label in dict.fromkeys(row["measure"] for row in rows if "measure" in row):
        file = plan.measured(label)
        keep(file.parent, output / "measures", (file.name,))
    for label in logs:
        keep(plan.runs / "networks" / label, output / "networks" / label, ("manifest.json", "selection.json"))
    # images crafted elsewhere are the weaker attack, which is what Table 2 is about
    compared = {row["run"] for row in rows if row["experiment"] == "transfer"}
    text = "\n".join([tables(rows, logs), checked(output, labels, compared)])
    write_text(output / "table.md", text)
    return text


def _line(*cells: object) -> str:
    return f"| {' | '.join(str(one) for one in cells)} |"
