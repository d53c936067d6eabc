"""The figures of `results/PRESET/`, drawn from its `summary.json` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.tables import Row, means
from presets import ADVERSARIAL, CLEAN, MAIN_ROW
from sections import KEYS, NAMES, SIDES

from certify.files import write_bytes
from diffad.plots.style import LIGHT, new_figure, png, style

COLOURS = {ADVERSARIAL: LIGHT.series[0], CLEAN: LIGHT.series[1]}
MARKS: dict[str, dict[str, Any]] = {
    "clean": {"marker": "D", "color": LIGHT.muted},
    "in": {"marker": "^", "color": LIGHT.series[2]},
    "out": {"marker": "v", "color": LIGHT.series[4]},
    "both": {"marker": "o", "color": LIGHT.series[0]},
}
AXES = {
    "linf": "Linf size of the attack, in units of 1/255",
    "l2": "L2 size of the attack, in units of 1/255",
}


def draw_figures(output: Path) -> None:
    """Draw each figure that `summary.json` in this folder has rows for."""
    rows: list[Row] = json.loads((output / "summary.json").read_text(encoding="utf-8"))["rows"]
    found = means(rows, KEYS)
    with style(LIGHT):
        for experiment in MAIN_ROW:
            for name in dict.fromkeys(row["problem"] for row in rows if row["experiment"] == experiment):
                figure = ablation(found, name, experiment)
                write_bytes(output / f"{name}-{experiment}.png", png(figure))
        for name in dict.fromkeys(row["problem"] for row in rows if row["experiment"] in AXES):
            write_bytes(output / f"{name}-curves.png", png(curves(found, name)))


def ablation(found: Sequence[Row], name: str, experiment: str) -> Any:
    """AUROC of each row of an ablation, who is attacked by mark; bars are a standard deviation over seeds."""
    own = [row for row in found if row["problem"] == name]
    variants = list(dict.fromkeys(row["variant"] for row in own if row["experiment"] == experiment))
    places = [("main", ADVERSARIAL, MAIN_ROW[experiment]), *((experiment, one, one) for one in variants)]
    figure, axes = new_figure(6.8, 1.3 + 0.42 * len(places))
    for offset, side in zip((-0.24, -0.08, 0.08, 0.24), SIDES, strict=True):
        for place, (part, variant, _) in enumerate(places):
            for row in own:
                if (row["experiment"], row["variant"], row["side"]) == (part, variant, side):
                    axes.errorbar(
                        row["mean"],
                        place + offset,
                        xerr=row["std"] or 0.0,
                        markersize=5,
                        linewidth=1.0,
                        linestyle="",
                        label=side if place == 0 else None,
                        **MARKS[side],
                    )
    axes.axvline(0.5, color=LIGHT.muted, linewidth=1.0, linestyle=":", zorder=1)
    axes.set_yticks(range(len(places)), [label for _, _, label in places])
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("AUROC")
    axes.set_title(f"{name}: {experiment}")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def curves(found: Sequence[Row], name: str) -> Any:
    """AUROC `both` of both twins against the Linf and the L2 radius, with a standard deviation over seeds."""
    figure, _ = new_figure(7.6, 3.3, axes=False)
    panels = figure.subplots(1, len(AXES), sharey=True)
    for norm, axes in zip(AXES, panels, strict=True):
        for variant, colour in COLOURS.items():
            part = [
                row
                for row in found
                if (row["problem"], row["variant"], row["experiment"]) == (name, variant, norm)
                and row["side"] in ("clean", "both")
            ]
            points = sorted((row["radius"] * 255, row["mean"], row["std"] or 0.0) for row in part)
            if points:
                radii, values, spread = zip(*points, strict=True)
                axes.errorbar(
                    radii, values, yerr=spread, color=colour, marker="o", markersize=4, label=NAMES[variant]
                )
        axes.axhline(0.5, color=LIGHT.muted, linewidth=1.0, linestyle=":", zorder=1)
        axes.set_xlabel(AXES[norm])
        axes.set_ylim(-0.06, 1.06)
    panels[0].set_ylabel("AUROC, both attacked")
    panels[0].legend()
    return figure
