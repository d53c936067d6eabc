"""From run folders to rows, means over seeds, tables, and the small files that back them."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chains import KS
from plan import Plan
from presets import KINDS

from certify.files import write_json, write_text

Row = dict[str, Any]
MAIN, EXTRAS = ("", "certified"), ("curve", "surrogate", "score", "l2", *(f"k{k}" for k in KS))
SIDES = ("clean", "in", "out", "both")
CERTIFIED = (0.1, 0.25, 0.5)  # L2 radii of the table
KEPT = ("manifest.json", "images.parquet", "compare.json")


def collect(plan: Plan) -> list[Row]:
    """Return the AUROC rows of every run of the plan that is there, with set, kind, seed and experiment."""
    rows: list[Row] = []
    for seed in plan.seeds:
        for name in plan.sets(seed):
            for kind in KINDS:
                for experiment in (*MAIN, *EXTRAS):
                    label = run_label(name, kind, seed, experiment)
                    if (plan.folder(label) / "summary.json").is_file():
                        where = {
                            "set": name,
                            "kind": kind,
                            "seed": seed,
                            "experiment": experiment or "attack",
                        }
                        rows += [{"run": label, **where, **row} for row in rows_of(plan.folder(label))]
    return rows


def run_label(name: str, kind: str, seed: int, experiment: str) -> str:
    """Return the name of a run folder."""
    return "-".join([name, kind, str(seed), *([experiment] if experiment else [])])


def rows_of(folder: Path) -> list[Row]:
    """Return the rows of a run folder that say what was clean, attacked or, at the level of a whole cell, certified."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    keys = ("condition", "norm", "radius", "side", "method", "normals", "anomalies", "auroc")
    return [
        {key: row.get(key) for key in keys} for row in summary["auroc"] if row["alpha_kind"] != "per_image"
    ]


def means(rows: Sequence[Row]) -> list[Row]:
    """Return mean and standard deviation over seeds of the main experiments (None for a single seed)."""
    keys = ("set", "kind", "experiment", "condition", "norm", "radius", "side")
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row["experiment"] in ("attack", "certified"):
            groups.setdefault(tuple(row[key] for key in keys), []).append(row["auroc"])
    return [
        {
            **dict(zip(keys, group, strict=True)),
            "seeds": len(values),
            "mean": statistics.fmean(values),
            "std": statistics.stdev(values) if len(values) > 1 else None,
        }
        for group, values in groups.items()
    ]


def table(summary: Sequence[Row]) -> str:
    """Return a Markdown table, a line a set and kind: AUROC by side, that of the smoothed score, certified `both`."""
    certified = " | ".join(f"certified {radius:g}" for radius in CERTIFIED)
    lines = [
        f"| set | weights | seeds | Linf | clean | in | out | both | smoothed | {certified} |",
        "|" + "---|" * (9 + len(CERTIFIED)),
    ]
    for name, kind in dict.fromkeys((row["set"], row["kind"]) for row in summary):
        own = [row for row in summary if (row["set"], row["kind"]) == (name, kind)]
        attacked = [row for row in own if row["condition"] == "attack"]
        eps = f"{attacked[0]['radius'] * 255:.3g}/255" if attacked else ""
        sides = {row["side"]: row for row in own if row["experiment"] == "attack"}
        proved = {
            row["radius"]: row for row in own if row["condition"] == "certified" and row["side"] == "both"
        }
        smoothed = next(
            (r for r in own if r["experiment"] == "certified" and r["condition"] == "clean"), None
        )
        cells = [cell(sides.get(side)) for side in SIDES]
        cells += [cell(smoothed), *(cell(proved.get(radius), floor=True) for radius in CERTIFIED)]
        seeds = max((row["seeds"] for row in own), default=0)
        lines.append(f"| {name} | {kind} | {seeds} | {eps} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cell(row: Row | None, *, floor: bool = False) -> str:
    """Return `mean +- std`; certified values, which are lower bounds, cut rather than rounded."""
    if row is None:
        return ""
    mean = int(row["mean"] * 1000) / 1000 if floor else row["mean"]
    return f"{mean:.3f}" + ("" if row["std"] is None else f" ± {row['std']:.3f}")


def write_results(plan: Plan, output: Path) -> str:
    """Write `summary.json`, `table.md` and what backs them into the folder; return the table."""
    rows = collect(plan)
    found = means(rows)
    measures = sorted((plan.runs / "measures").glob("*.json"))
    measured = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in measures}
    write_json(output / "summary.json", {"means": found, "rows": rows, "measures": measured})
    write_text(output / "table.md", table(found))
    for label in dict.fromkeys(row["run"] for row in rows):
        keep(plan.folder(label), output / "runs" / label, KEPT)
    for folder in sorted(plan.runs.glob("backbone-*")):
        keep(
            folder,
            output / "backbones" / folder.name[len("backbone-") :],
            ("manifest.json", "accuracy.jsonl"),
        )
    return table(found)


def keep(folder: Path, target: Path, names: Sequence[str]) -> None:
    """Copy the named files of a folder that are there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
