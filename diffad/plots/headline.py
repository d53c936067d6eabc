"""The headline figure: certified and attacked AUROC against the L2 radius, the gap between them shaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certify.checks import InputError
from certify.types import FloatArray, Side
from diffad.conditions import Subject
from diffad.metric_rows import Row, auroc_table
from diffad.plots.style import LIGHT, Theme, new_figure, style
from diffad.ranking import HALF
from diffad.runs import NETWORK_FREE, Run, join_runs
from diffad.tables import find, strength, subject_of

FEW = 4  # curves that can all be shaded
BESIDE = 10  # more curves than these have their legend beside the axes
WIDTH, LINE, CHARACTER = 6.4, 0.24, 0.067  # inches: of the axes, a line of the legend, a character in it
MARKERS = ("o", "s", "^")


@dataclass(frozen=True)
class Curve:
    """What one subject adds to the headline: clean AUROC, and (radii, values) certified and attacked."""

    label: str
    subject: Subject
    clean: float | None
    certified: tuple[FloatArray, FloatArray]
    attacked: tuple[FloatArray, FloatArray]


def curves(runs: Iterable[Run], side: Side = "both") -> list[Curve]:
    """Curves of every subject against the L2 radius, trained networks first.

    Of several levels and n the total level is taken, then the largest n.
    """
    found: list[Curve] = []
    runs = join_runs(runs)
    labels = subject_labels(runs)
    for run in runs:
        rows = auroc_table(run)
        for subject in run.subjects:
            own = [row for row in rows if subject_of(row) == subject]
            clean = find(own, condition="clean")
            start = [] if clean is None else [(0.0, float(clean["auroc"]))]
            certified = _points(own, "certified", side)
            attacked = _points(own, "attack", side)
            if attacked:
                attacked = sorted({**dict(start), **dict(attacked)}.items())
            value = None if clean is None else float(clean["auroc"])
            found.append(
                Curve(labels[run.folder, subject], subject, value, _columns(certified), _columns(attacked))
            )
    return sorted(found, key=lambda curve: curve.subject.detector in NETWORK_FREE)


def subject_labels(runs: Iterable[Run]) -> dict[tuple[Path, Subject], str]:
    """A name for each (folder, subject) of joined runs; with the folder's name where two would be alike."""
    pairs = [(run, subject) for run in join_runs(runs) for subject in run.subjects]
    names = [subject.label for _, subject in pairs]
    return {
        (run.folder, subject): f"{name} [{run.folder.name}]" if names.count(name) > 1 else name
        for (run, subject), name in zip(pairs, names, strict=True)
    }


def _points(rows: list[Row], condition: str, side: Side) -> list[tuple[float, float]]:
    chosen = [r for r in rows if (r["condition"], r["norm"], r["side"]) == (condition, "l2", side)]
    # Later entries win: the per-image convention gives way to the total level, a small n to a large one, and of
    # several attacks the best one stands.
    chosen.sort(key=lambda row: (row["radius"], *strength(row)))
    return sorted({float(row["radius"]): float(row["auroc"]) for row in chosen}.items())


def _columns(points: Sequence[tuple[float, float]]) -> tuple[FloatArray, FloatArray]:
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def gap(curve: Curve) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Radii with the certified and the attacked value where both exist, straight between measured points.

    That is what is shaded, not what is proved: between two radii the certificate is that of the larger, the attack that
    of the smaller.
    """
    (r_low, low), (r_high, high) = curve.certified, curve.attacked
    if min(len(r_low), len(r_high)) < 2:
        empty = np.empty(0)
        return empty, empty, empty
    radii = np.union1d(r_low, r_high)
    radii = radii[(radii >= max(r_low[0], r_high[0])) & (radii <= min(r_low[-1], r_high[-1]))]
    return radii, np.interp(radii, r_low, low), np.interp(radii, r_high, high)


def headline(runs: Sequence[Run], *, side: Side = "both", theme: Theme = LIGHT) -> Any:
    """Certified and attacked AUROC against the L2 radius, one colour a subject, the gap shaded.

    With more than `FEW` curves only those of trained networks are shaded, and the others are drawn thin; with more than
    `BESIDE` none is shaded, and the legend stands beside the axes.
    """
    series = curves(runs, side)
    if not any(len(curve.certified[0]) or len(curve.attacked[0]) for curve in series):
        raise InputError("headline figure: no certified and no attacked result in L2; run certify first")
    learnt = [curve for curve in series if curve.subject.detector not in NETWORK_FREE]
    bold = learnt if learnt and len(series) > FEW else series
    with style(theme):
        beside = len(series) > BESIDE
        columns = 1 if beside or 2 * legend_width(series) > WIDTH else 2
        height = 4.6 if beside else 4.6 + LINE * -(-len(series) // columns)
        figure, axes = new_figure(
            WIDTH + legend_width(series) * beside, max(height, 0.8 + LINE * len(series) * beside)
        )
        for number, curve in reversed(list(enumerate(series))):
            _draw_curve(
                axes,
                curve,
                theme.series[number % len(theme.series)],
                theme,
                bold=curve in bold,
                shaded=curve in bold and not beside,
                marker=_marker(number, theme),
            )
        draw_half(axes, theme)
        right = max(float(r.max()) for c in series for r in (c.certified[0], c.attacked[0]) if len(r)) or 1.0
        axes.set(xlim=(-0.02 * right, 1.03 * right), ylim=(-0.02, 1.03))
        axes.set_xlabel("L2 size of the attack on each image (pixel values in [0, 1])")
        axes.set_ylabel("AUROC" if side == "both" else f"AUROC, side {side} attacked")
        _headline_legends(figure, series, theme, columns, beside=beside)
    return figure


def legend_width(series: Sequence[Curve]) -> float:
    """Return about how wide one column of the legend is, in inches."""
    return 0.5 + CHARACTER * max(len(curve.label) for curve in series)


def _marker(number: int, theme: Theme) -> str:
    """Return the mark of a curve: where there are more curves than colours, a colour comes back with another mark."""
    return MARKERS[number // len(theme.series) % len(MARKERS)]


def _draw_curve(
    axes: Any, curve: Curve, colour: str, theme: Theme, *, bold: bool, shaded: bool, marker: str
) -> None:
    width, size = (2.0, 4.0) if bold else (1.1, 2.5)
    if shaded:
        radii, low, high = gap(curve)
        axes.fill_between(radii, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(*curve.certified, color=colour, linewidth=width, marker=marker, markersize=size, zorder=3)
    dashed: dict[str, Any] = {"linestyle": (0, (4, 2)), "marker": "v", "markersize": size + 0.5}
    axes.plot(*curve.attacked, color=colour, linewidth=0.8 * width, **dashed)
    if curve.clean is not None:
        diamond: dict[str, Any] = {"marker": "D", "markersize": 2 * size, "markeredgecolor": theme.paper}
        axes.plot([0.0], [curve.clean], color=colour, zorder=4, clip_on=False, **diamond)


def draw_half(axes: Any, theme: Theme) -> None:
    """Draw the line of a constant score, below which nothing is certified."""
    axes.axhline(HALF, color=theme.muted, linewidth=1.1, linestyle=":", zorder=1)
    axes.annotate(
        "a constant score certifies .5",
        (0.005, HALF),
        xycoords=("axes fraction", "data"),
        xytext=(2, -4),
        textcoords="offset points",
        va="top",
        fontsize=8.5,
        color=theme.muted,
        bbox={"facecolor": theme.paper, "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        zorder=5,  # in front of the curves, which cross it wherever it stands
    )


def _headline_legends(figure: Any, series: list[Curve], theme: Theme, columns: int, *, beside: bool) -> None:
    """One legend for who (colour, above the axes or beside them) and one for what (line style, below)."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    who = [
        Line2D(
            [],
            [],
            color=theme.series[i % len(theme.series)],
            linewidth=3.5,
            label=curve.label,
            marker=_marker(i, theme) if i >= len(theme.series) else "",
            markersize=8,
        )
        for i, curve in enumerate(series)
    ]
    place = "outside right upper" if beside else "outside upper left"
    figure.legend(handles=who, loc=place, ncols=columns, columnspacing=1.8, handlelength=1.2)
    certified = Line2D([], [], color=theme.muted, marker="o", markersize=4, linewidth=2.0)
    attacked = Line2D([], [], color=theme.muted, marker="v", markersize=4.5, linestyle=(0, (4, 2)))
    clean = Line2D([], [], color=theme.muted, marker="D", linestyle="")
    unknown = Patch(color=theme.muted, alpha=0.25, linewidth=0)
    # Between the marks lines lead the eye: what is certified there is the value of the next mark.
    keys: list[tuple[Any, str]] = [
        (certified, "certified: at each mark the truth is at least this"),
        (clean, "clean"),
    ]
    if any(len(curve.attacked[0]) for curve in series):
        keys.insert(0, (attacked, "attacked: at each mark the truth is at most this (smoothed: estimated)"))
        if not beside:  # else nothing is shaded
            keys.append((unknown, "not known"))
    shown, words = zip(*keys, strict=True)
    figure.legend(
        shown,
        words,
        loc="outside lower center",
        ncols=2,
        columnspacing=1.8,
        fontsize=9,
    )


def pick_radius(run: Run, subject: Subject) -> float | None:
    """The radius to illustrate: the largest that certifies something, if possible one that was attacked."""
    curve = next(curve for curve in curves([run]) if curve.subject == subject.score)
    radii, values = curve.certified
    good = radii[(values > HALF) & (radii > 0)]
    attacked = np.intersect1d(good, curve.attacked[0])
    if len(good):
        return float(attacked.max() if len(attacked) else good.max())
    return float(radii[radii > 0].min()) if (radii > 0).any() else None
