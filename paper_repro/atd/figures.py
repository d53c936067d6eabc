"""The figures of `results/PRESET/`, drawn from its `summary.json` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.tables import Row, means
from report import KEYS, MEAN, SIDES, TITLES, variants

from certify.files import write_bytes
from diffad.plots.style import LIGHT, new_figure, png, style

MARKS: dict[str, dict[str, Any]] = {
    "clean": {"marker": "D", "color": LIGHT.muted},
    "in": {"marker": "^", "color": LIGHT.series[2]},
    "out": {"marker": "v", "color": LIGHT.series[4]},
    "both": {"marker": "o", "color": LIGHT.series[0]},
}


def draw_figures(output: Path) -> None:
    """Draw a figure for each table that `summary.json` in this folder has rows for."""
    rows: list[Row] = json.loads((output / "summary.json").read_text(encoding="utf-8"))["rows"]
    found = [row for row in means(rows, KEYS) if row["set"] == MEAN]
    with style(LIGHT):
        for problem, experiment in dict.fromkeys((row["problem"], row["experiment"]) for row in found):
            own = [row for row in found if (row["problem"], row["experiment"]) == (problem, experiment)]
            write_bytes(output / f"{problem}-{experiment}.png", png(marks(own, experiment, problem)))


def marks(own: Sequence[Row], experiment: str, problem: str) -> Any:
    """AUROC of each row, mean over outlier sets, who is attacked by mark; bars are a standard deviation over seeds."""
    places = [one for one in variants(experiment) if any(row["variant"] == one for row in own)]
    figure, axes = new_figure(6.8, 1.3 + 0.4 * len(places))
    for offset, side in zip((-0.24, -0.08, 0.08, 0.24), SIDES, strict=True):
        part = [row for row in own if row["side"] == side]
        axes.errorbar(
            [row["mean"] for row in part],
            [places.index(row["variant"]) + offset for row in part],
            xerr=[row["std"] or 0.0 for row in part],
            markersize=5,
            linewidth=1.0,
            linestyle="",
            label=side,
            **MARKS[side],
        )
    axes.axvline(0.5, color=LIGHT.muted, linewidth=1.0, linestyle=":", zorder=1)
    axes.set_yticks(range(len(places)), places)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("AUROC, mean over outlier sets")
    axes.set_title(f"{problem}: {TITLES[experiment].partition(':')[0]}")
    figure.legend(loc="outside lower center", ncols=4)
    return figure
