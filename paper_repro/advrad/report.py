"""From run folders to rows, and to the files of `results/PRESET/`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from chains import ABLATION, NETWORK, NORMS
from common.checked import checked
from common.recorded import summary, with_recorded
from common.tables import Row, keep
from common.tables import rows_of as run_rows
from plan import Plan
from presets import ABLATIONS, BASE_NAME, BASELINES, CERTIFIED, COMPARED, EOT, KNOWN, MAIN_CERTIFICATE
from sections import tables

from certify.files import write_json, write_text

KEPT = ("manifest.json", "images.parquet", "compare.json")


def runs_of(plan: Plan, name: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield experiment, variant and run folder of everything that is planned for a problem and a seed."""
    for variant in (*COMPARED, *BASELINES):
        for norm in NORMS:
            yield "detectors", variant, f"{plan.label(name, variant, seed)}-{norm}"
    for table, variants in ABLATIONS.items():
        for variant in (BASE_NAME, *variants):
            yield table, variant, f"{plan.label(name, variant, seed)}-{ABLATION}"
    for draws in (KNOWN, *EOT):
        yield "eot", draws, f"{plan.label(name, BASE_NAME, seed)}-eot-{draws}"
    for way in CERTIFIED:
        yield "certified", way, plan.label(name, way, seed)
    for n in plan.preset.others:
        variant = f"{MAIN_CERTIFICATE}-n-{n}"
        yield "draws", variant, plan.label(name, variant, seed)
    yield "same_score", MAIN_CERTIFICATE, plan.label(name, "same_score", seed)


def rows_of(folder: Path) -> list[Row]:
    """Return the rows of a run folder with the name of the detector, which has network-free ones beside it."""
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["auroc"]
    named = [row["detector"] for row in found if row["alpha_kind"] != "per_image"]
    return [{"detector": name, **row} for name, row in zip(named, run_rows(folder), strict=True)]


def collect(plan: Plan) -> list[Row]:
    """Return the AUROC rows of every run of the plan that is there."""
    rows: list[Row] = []
    for name in plan.problems:
        for seed in plan.seeds:
            for experiment, variant, label in runs_of(plan, name, seed):
                if (plan.folder(label) / "summary.json").is_file():
                    where = {"problem": name, "experiment": experiment, "variant": variant, "seed": seed}
                    # both runs of a detector have its clean row: kept apart, or it would be counted twice
                    where["attacked_in"] = label.rpartition("-")[2] if experiment == "detectors" else ""
                    rows += [{**where, "run": label, **row} for row in rows_of(plan.folder(label))]
    return rows


def trainings(plan: Plan) -> dict[str, Row]:
    """Return of every network the last line of the log of its training."""
    found: dict[str, Row] = {}
    for file in sorted((plan.runs / "networks").glob(f"*-{NETWORK}-*/log.jsonl")):
        found[file.parent.name] = json.loads(file.read_text(encoding="utf-8").splitlines()[-1])
    return found


def write_results(plan: Plan, output: Path) -> str:
    """Write `summary.json`, `table.md` and what backs them into the folder; return the tables.

    What the folder holds of other runs stays.
    """
    rows = with_recorded(collect(plan), output)
    logs = {**summary(output, "trainings", {}), **trainings(plan)}
    write_json(output / "summary.json", {"trainings": logs, "rows": rows})
    labels = dict.fromkeys(row["run"] for row in rows)
    for label in labels:
        keep(plan.folder(label), output / "runs" / label, KEPT)
    for label in logs:
        keep(plan.runs / "networks" / label, output / "networks" / label, ("manifest.json",))
    compared = {row["run"] for row in rows if row["experiment"] == "eot"}
    text = "\n".join([tables(rows, plan.preset.n), checked(output, labels, compared)])
    write_text(output / "table.md", text)
    return text
