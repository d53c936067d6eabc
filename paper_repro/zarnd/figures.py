"""The figures of `results/PRESET/`, drawn from its `summary.json` alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chains import KS, L2_RADII
from presets import KINDS

from certify.files import write_bytes
from diffad.plots.style import LIGHT, new_figure, png, style

Row = dict[str, Any]
ROW, WIDE = 3, 9.0  # panels side by side; inches that take a legend in one line
COLOURS = {"robust": LIGHT.series[0], "standard": LIGHT.series[1]}
SIDE_STYLES: dict[str, dict[str, Any]] = {
    "both": {"linestyle": "-", "marker": "o", "linewidth": 2.0, "markersize": 4},
    "in": {"linestyle": (0, (4, 2)), "marker": "^", "linewidth": 1.1, "markersize": 4},
    "out": {"linestyle": (0, (1, 1.5)), "marker": "v", "linewidth": 1.1, "markersize": 4},
}
CLEAN: dict[str, Any] = {"marker": "D", "linestyle": "", "markersize": 6}
OBJECTIVES = {
    "surrogate": "mean feature (published)",
    "score": "the score",
    "attack": "ensemble on the score",
}


def draw_figures(output: Path) -> None:
    """Draw each figure that `summary.json` in this folder has rows for."""
    summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    rows: list[Row] = summary["rows"]
    first = min((row["seed"] for row in rows), default=0)
    rows = [row for row in rows if row["seed"] == first]
    numbers = {f"k{k}" for k in KS}
    followed = {row["set"] for row in rows if row["experiment"] == "surrogate"}
    swept = {row["set"] for row in rows if row["experiment"] == f"k{KS[-1]}"}  # the last one that is run
    figures = {
        "eps_curve": (eps_curve, [r for r in rows if r["experiment"] == "curve"]),
        "surrogate": (surrogate, [r for r in rows if r["set"] in followed and r["experiment"] in OBJECTIVES]),
        "neighbours": (neighbours, [r for r in rows if r["set"] in swept and r["experiment"] in numbers]),
        "certified_attacked": (certified_attacked, [r for r in rows if r["experiment"] == "l2"]),
    }
    with style(LIGHT):
        for name, (draw, part) in figures.items():
            if part:
                write_bytes(output / f"{name}.png", png(draw(part)))
        if growth := summary["measures"].get("scaling", {}).get("growth"):
            write_bytes(output / "scaling.png", png(scaling(growth)))


def panels(count: int, label: str) -> tuple[Any, list[Any]]:
    """Return a figure of panels, three a row, that share the AUROC axis."""
    columns, rows = min(count, ROW), -(-count // ROW)
    figure, _ = new_figure(max(6.4, 1.0 + 2.9 * columns), 1.4 + 2.6 * rows, axes=False)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[count:]:
        unused.remove()
    for one in axes[:count]:
        draw_half_line(one)
        one.set_ylim(-0.03, 1.06)
        one.tick_params(labelbottom=True)
    for one in grid[:, 0]:
        one.set_ylabel("AUROC")
    figure.supxlabel(label, fontsize=10.5)
    return figure, axes[:count]


def draw_half_line(axes: Any) -> None:
    """Mark chance."""
    axes.axhline(0.5, color=LIGHT.muted, linewidth=1.0, linestyle=":", zorder=1)


def sets_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the test sets, in order."""
    return list(dict.fromkeys(row["set"] for row in rows))


def title(name: str) -> str:
    """Return the name of a test set for people."""
    return {"mnist": "MNIST"}.get(name, name.replace("_", " "))


def eps_curve(rows: Sequence[Row]) -> Any:
    """AUROC against the Linf radius: colour tells the weights, line style who is attacked."""
    names = sets_of(rows)
    figure, axes = panels(len(names), "Linf size of the attack, in units of 1/255")
    for name, one in zip(names, axes, strict=True):
        one.set_title(title(name))
        for kind in KINDS:
            own = [row for row in rows if (row["set"], row["kind"]) == (name, kind)]
            if not own:
                continue
            clean = next(row["auroc"] for row in own if row["condition"] == "clean")
            for side, look in SIDE_STYLES.items():
                points = sorted((row["radius"] * 255, row["auroc"]) for row in own if row["side"] == side)
                one.plot(*zip((0.0, clean), *points, strict=True), color=COLOURS[kind], **look)
    legends(
        figure, {f"{kind} weights": {"color": COLOURS[kind], "linewidth": 3} for kind in COLOURS}, SIDE_STYLES
    )
    return figure


def legends(figure: Any, colours: dict[str, dict[str, Any]], looks: dict[str, dict[str, Any]]) -> None:
    """One legend above the panels: who by colour, what by line style."""
    from matplotlib.lines import Line2D

    names = {"both": "both attacked", "in": "normals attacked", "out": "anomalies attacked"}
    handles = [Line2D([], [], label=name, **look) for name, look in colours.items()]
    handles += [
        Line2D([], [], color=LIGHT.muted, label=names.get(name, name), **look) for name, look in looks.items()
    ]
    columns = len(handles) if figure.get_figwidth() > WIDE else min(len(handles), 2)
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.4, handlelength=1.8
    )


def surrogate(rows: Sequence[Row]) -> Any:
    """AUROC `both` that is left by PGD on the published surrogate, by PGD on the score, and by the ensemble."""
    names = sets_of(rows)
    figure, axes = panels(len(names), "what the attack ascends, at Linf 4/255")
    places = range(len(OBJECTIVES) + 1)
    for name, one in zip(names, axes, strict=True):
        one.set_title(title(name))
        for offset, kind in ((-0.2, "standard"), (0.2, "robust")):
            own = [row for row in rows if (row["set"], row["kind"]) == (name, kind)]
            found = {row["experiment"]: row["auroc"] for row in own if row["side"] == "both"}
            found["clean"] = next((row["auroc"] for row in own if row["condition"] == "clean"), math.nan)
            bars = [(place, found[key]) for place, key in enumerate(("clean", *OBJECTIVES)) if key in found]
            drawn = one.bar(
                [place + offset for place, _ in bars],
                [value for _, value in bars],
                0.38,
                color=COLOURS[kind],
            )
            one.bar_label(drawn, labels=[f"{value:.2f}" for _, value in bars], fontsize=7.5, padding=1)
        one.set_xticks(list(places), ["clean", "mean\nfeature", "score", "score,\nensemble"], fontsize=8.5)
        one.grid(visible=False, axis="x")
    legends(figure, {f"{kind} weights": {"color": COLOURS[kind], "linewidth": 5} for kind in COLOURS}, {})
    return figure


def neighbours(rows: Sequence[Row]) -> Any:
    """Clean and attacked AUROC against the number of neighbours, robust weights."""
    names = sets_of(rows)
    figure, axes = panels(len(names), "neighbours k of the score (robust weights)")
    looks = {"clean": {"marker": "D", "linewidth": 1.3}, "both": SIDE_STYLES["both"]}
    for name, one in zip(names, axes, strict=True):
        one.set_title(title(name))
        for side, look in looks.items():
            found = {r["experiment"]: r["auroc"] for r in rows if r["set"] == name and r["side"] == side}
            points = [(place, found[f"k{k}"]) for place, k in enumerate(KS) if f"k{k}" in found]
            one.plot(
                *zip(*points, strict=True), color=COLOURS["robust"] if side == "both" else LIGHT.muted, **look
            )
        one.set_xticks(range(len(KS)), [str(k) for k in KS])
    legends(
        figure,
        {
            "clean": {"color": LIGHT.muted, **looks["clean"]},
            "both attacked": {"color": COLOURS["robust"], **looks["both"]},
        },
        {},
    )
    return figure


def certified_attacked(rows: Sequence[Row]) -> Any:
    """Certified and attacked AUROC `both` of the smoothed score against the L2 radius, on the same few images."""
    names = sets_of(rows)
    figure, axes = panels(len(names), "L2 size of the attack (pixel values in [0, 1])")
    looks = {
        "attack": {"linestyle": (0, (4, 2)), "marker": "v"},
        "certified": {"marker": "o", "linewidth": 2.0},
    }
    for name, one in zip(names, axes, strict=True):
        one.set_title(title(name))
        for kind in KINDS:
            own = [row for row in rows if (row["set"], row["kind"]) == (name, kind)]
            clean = [row["auroc"] for row in own if row["condition"] == "clean"]
            one.plot([0.0] * len(clean), clean, color=COLOURS[kind], **CLEAN)
            for condition, look in looks.items():
                points = sorted(
                    (r["radius"], r["auroc"])
                    for r in own
                    if r["condition"] == condition and r["side"] == "both"
                )
                if points:
                    one.plot(*zip(*points, strict=True), color=COLOURS[kind], markersize=4, **look)
        one.set_xticks([0.0, *(float(radius) for radius in L2_RADII.split(","))])
    words = {
        "attack": "attacked: at most this (smoothed: estimated)",
        "certified": "certified: at least this",
    }
    colours = {f"{kind} weights": {"color": COLOURS[kind], "linewidth": 3} for kind in COLOURS}
    legends(figure, colours, {words[name]: look for name, look in looks.items()} | {"clean": CLEAN})
    return figure


def scaling(growth: Sequence[Row]) -> Any:
    """Time of the search and peak memory against the size of the bank."""
    figure, _ = new_figure(6.8, 3.2, axes=False)
    left, right = figure.subplots(1, 2)
    banks = [row["bank"] / 1000 for row in growth]
    left.plot(banks, [row["seconds"] for row in growth], marker="o", color=COLOURS["robust"])
    left.set_ylabel("seconds for 1024 queries")
    right.plot(
        banks,
        [row["peak_megabytes"] for row in growth],
        marker="o",
        color=COLOURS["robust"],
        label="process, at its peak",
    )
    right.plot(
        banks, [row["bank_megabytes"] for row in growth], marker="s", color=LIGHT.muted, label="bank alone"
    )
    right.set_ylabel("MiB")
    right.legend()
    for one in (left, right):
        one.set_ylim(bottom=0)
        one.set_xlabel("thousand features in the bank")
    return figure
