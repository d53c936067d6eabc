"""From run folders to rows, means over seeds, tables, and the small files that back them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from chains import KS
from common.checked import checked
from common.recorded import summary, with_recorded
from common.tables import Row, cell, keep, means, rows_of
from directions import directions
from plan import Plan
from presets import KINDS

from certify.files import write_json, write_text

MAIN, EXTRAS = ("", "certified"), ("curve", "surrogate", "score", "l2", *(f"k{k}" for k in KS))
COMPARED = ("surrogate", "score")  # PGD on one objective and on another: the attacks are what is compared
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


def seed_means(rows: Sequence[Row]) -> list[Row]:
    """Return mean and standard deviation over seeds of the main experiments (None for a single seed)."""
    main = [row for row in rows if row["experiment"] in ("attack", "certified")]
    return means(main, ("set", "kind", "experiment", "condition", "norm", "radius", "side"))


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


def write_results(plan: Plan, output: Path) -> str:
    """Write `summary.json`, `table.md` and what backs them into the folder; return the table.

    What the folder holds of other runs stays.
    """
    rows = with_recorded(collect(plan), output)
    found = seed_means(rows)
    measures = sorted((plan.runs / "measures").glob("*.json"))
    measured = summary(output, "measures", {})
    measured |= {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in measures}
    write_json(output / "summary.json", {"means": found, "rows": rows, "measures": measured})
    labels = list(dict.fromkeys(row["run"] for row in rows))
    for label in labels:
        keep(plan.folder(label), output / "runs" / label, KEPT)
    compared = {row["run"] for row in rows if row["experiment"] in COMPARED}
    sections = [table(found), directions(rows), checked(output, labels, compared)]
    write_text(output / "table.md", "\n".join(section for section in sections if section))
    for folder in sorted(plan.runs.glob("backbone-*")):
        keep(
            folder,
            output / "backbones" / folder.name[len("backbone-") :],
            ("manifest.json", "accuracy.jsonl"),
        )
    return table(found)
