"""Scores of normal and anomalous images, and how far an attack can move each of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from certify.checks import InputError
from certify.text import short_text
from diffad.conditions import Condition, Subject
from diffad.plots.headline import pick_radius
from diffad.plots.style import LIGHT, Theme, new_figure, style
from diffad.runs import Run


def distributions(run: Run, subject: Subject, *, radius: float | None = None, theme: Theme = LIGHT) -> Any:
    """Clean scores of normal and anomalous images, and beside them the certified interval of every image."""
    clean = next(iter(run.of(subject, "clean")), None)
    if clean is None:
        raise InputError(f"score distributions: {subject.label} has no clean scores in {run.folder}")
    radius = pick_radius(run, subject) if radius is None else radius
    certified = at_radius(run.of(subject, "certified", "l2"), radius)
    with style(theme):
        figure, _ = new_figure(6.4, 3.5, axes=False)
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 2.3) if certified else (3, 1))
        limits = score_limits(clean, certified)
        _draw_histogram(left, clean, limits, theme)
        if certified is None:
            right.axis("off")
        else:
            _draw_intervals(right, clean, certified, limits, theme)
        for axes in (left, right):
            draw_threshold(axes, run.threshold(subject), theme, vertical=False)
        if (threshold := run.threshold(subject)) is not None:
            left.annotate(
                "threshold",
                (1, threshold),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 3),
                textcoords="offset points",
                ha="right",
                fontsize=8.5,
                color=theme.ink,
            )
    return figure


def at_radius(conditions: Iterable[Condition], radius: float | None) -> Condition | None:
    """The condition at a radius; the total level before the convention, the largest n first."""
    found = [c for c in conditions if c.radius == radius]
    return max(found, key=lambda c: (c.alpha_kind != "per_image", c.n), default=None)


def score_limits(clean: Condition, certified: Condition | None) -> tuple[float, float]:
    """A range that shows all clean scores and all but the most extreme finite bounds."""
    values = [clean.bounds.lower]
    if certified is not None:
        for ends, level in ((certified.bounds.lower, 0.02), (certified.bounds.upper, 0.98)):
            finite = ends[np.isfinite(ends)]
            values += [np.quantile(finite, [level])] if finite.size else []
    low, high = float(np.min(np.concatenate(values))), float(np.max(np.concatenate(values)))
    margin = 0.06 * (high - low) or 0.5
    return low - margin, high + margin


def _draw_histogram(axes: Any, clean: Condition, limits: tuple[float, float], theme: Theme) -> None:
    scores, labels = clean.bounds.lower, clean.images.labels
    bins = np.linspace(scores.min(), scores.max() + 1e-12, 25)
    for label, colour, name in ((0, theme.normal, "normal"), (1, theme.anomalous, "anomalous")):
        options = {"orientation": "horizontal", "color": colour, "label": name}
        axes.hist(scores[labels == label], bins=bins, alpha=0.55, **options)
    axes.set(ylim=limits, xlabel="images", ylabel="score (higher = more anomalous)")
    axes.set_title("clean scores", loc="left")
    axes.legend(loc="upper right", fontsize=9)


def _draw_intervals(
    axes: Any, clean: Condition, certified: Condition, limits: tuple[float, float], theme: Theme
) -> None:
    """One vertical line an image, normals first, sorted by clean score; infinite ends leave the axes."""
    clean = clean.take(certified.images.index)
    certified = certified.take(clean.images.index)
    order = np.lexsort((clean.bounds.lower, clean.images.labels))
    labels, scores = clean.images.labels[order], clean.bounds.lower[order]
    low = np.maximum(certified.bounds.lower[order], limits[0] - 1)
    high = np.minimum(certified.bounds.upper[order], limits[1] + 1)
    place = np.arange(len(order))
    width = float(np.clip(200 / len(order), 0.3, 2.2))
    for label, colour in ((0, theme.normal), (1, theme.anomalous)):
        own = labels == label
        axes.vlines(place[own], low[own], high[own], color=colour, linewidth=width, alpha=0.4)
        axes.plot(place[own], scores[own], ".", color=colour, markersize=float(np.clip(width * 1.6, 1.5, 4)))
    normals = int((labels == 0).sum())
    axes.set_xlim(-0.02 * len(order), 1.02 * len(order) - 1)
    axes.set_xticks([normals / 2, (normals + len(order)) / 2], ["normal images", "anomalous images"])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_title(f"no attack of L2 size {short_text(certified.radius)} leaves these intervals", loc="left")


def draw_threshold(axes: Any, threshold: float | None, theme: Theme, *, vertical: bool) -> None:
    """A dashed line at the calibrated threshold, if there is one."""
    if threshold is None:
        return
    line = axes.axvline if vertical else axes.axhline
    line(threshold, color=theme.ink, linewidth=1.0, linestyle=(0, (5, 3)), zorder=5)
