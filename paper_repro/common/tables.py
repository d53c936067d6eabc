"""From the summaries of run folders to means over seeds and the cells of a table."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
KEYS = ("condition", "norm", "radius", "side", "method", "normals", "anomalies", "auroc")


def rows_of(folder: Path) -> list[Row]:
    """Return the rows of a run folder that say what was clean, attacked or, at the level of a whole cell, certified."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return [
        {key: row.get(key) for key in KEYS} for row in summary["auroc"] if row["alpha_kind"] != "per_image"
    ]


def means(rows: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """Return mean and standard deviation (None for a single row) of the AUROC of rows that agree on the keys."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
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


def cell(row: Row | None, *, floor: bool = False) -> str:
    """Return `mean +- std`; certified values, which are lower bounds, cut rather than rounded."""
    if row is None:
        return ""
    mean = int(row["mean"] * 1000) / 1000 if floor else row["mean"]
    return f"{mean:.3f}" + ("" if row["std"] is None else f" ± {row['std']:.3f}")


def keep(folder: Path, target: Path, names: Sequence[str]) -> None:
    """Copy the named files of a folder that are there."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)
