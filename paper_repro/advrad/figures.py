"""The figures of `results/PRESET/`, drawn from its `summary.json` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.tables import Row, means
from sections import KEYS, NETWORK_FREE, attacked, clean, step_of, variants_of

from certify.files import write_bytes
from diffad.plots.style import LIGHT, new_figure, png, style


def draw_figures(output: Path) -> None:
    """Draw each figure that `summary.json` in this folder has rows for."""
    rows: list[Row] = json.loads((output / "summary.json").read_text(encoding="utf-8"))["rows"]
    found = means(rows, KEYS)
    with style(LIGHT):
        for problem in dict.fromkeys(row["problem"] for row in found):
            own = [row for row in found if row["problem"] == problem]
            for name, draw in (("timestep", steps), ("certified", certified)):
                part = [row for row in own if row["experiment"] == name]
                if part:
                    write_bytes(output / f"{problem}-{name}.png", png(draw(part, problem)))


def steps(part: Sequence[Row], problem: str) -> Any:
    """AUROC clean and attacked against the diffusion step: small ones keep the perturbation, large ones lose detail."""
    figure, axes = new_figure(5.4, 3.6)
    names = [name for name in variants_of("timestep") if any(row["variant"] == name for row in part)]
    places = [step_of(name) for name in names]
    rows = [[row for row in part if row["variant"] == name] for name in names]
    lines = {"clean": [clean(one) for one in rows]}
    lines |= {f"{side} attacked": [attacked(one, side) for one in rows] for side in ("in", "out", "both")}
    for place, (label, values) in enumerate(lines.items()):
        heights = [float("nan") if row is None else row["mean"] for row in values]
        axes.plot(places, heights, marker="o", markersize=4, color=LIGHT.series[place], label=label)
    _frame(axes, "diffusion step k", f"{problem}: AUROC against the step")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def certified(part: Sequence[Row], problem: str) -> Any:
    """Certified AUROC `both` against the L2 radius; rows without a network are dashed."""
    figure, axes = new_figure(6.4, 4.4)
    proved = [row for row in part if row["condition"] == "certified" and row["side"] == "both"]
    subjects = dict.fromkeys((row["variant"], row["detector"]) for row in proved)
    place = 0
    for variant, detector in subjects:
        own = [row for row in proved if (row["variant"], row["detector"]) == (variant, detector)]
        own.sort(key=lambda row: row["radius"])
        free = detector in NETWORK_FREE
        colour = LIGHT.muted if free else LIGHT.series[place % len(LIGHT.series)]
        dashes = (0, (1 + 2 * list(NETWORK_FREE).index(detector), 2)) if free else "-"
        if not free and place >= len(LIGHT.series):
            dashes = (0, (4, 1, 1, 1))
        place += not free
        values = [row["mean"] for row in own]
        axes.plot(
            [row["radius"] for row in own],
            values,
            color=colour,
            linestyle=dashes,
            linewidth=1.6,
            label=detector if free else variant,
        )
    _frame(axes, "L2 radius", f"{problem}: certified AUROC, both sides attacked")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _frame(axes: Any, label: str, title: str) -> None:
    axes.axhline(0.5, color=LIGHT.muted, linewidth=1.0, linestyle=":", zorder=1)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel(label)
    axes.set_ylabel("AUROC")
    axes.set_title(title)
