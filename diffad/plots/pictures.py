"""A few test images: what the detector saw, what it made of them, and where their scores lie."""

from __future__ import annotations

from typing import Any

import numpy as np

from certify.checks import InputError
from certify.text import short_text
from diffad.conditions import Condition
from diffad.examples import Examples
from diffad.plots.headline import pick_radius
from diffad.plots.scores import at_radius, draw_threshold, score_limits
from diffad.plots.style import LIGHT, Theme, new_figure, style
from diffad.runs import Run


def example_figure(run: Run, examples: Examples, *, radius: float | None = None, theme: Theme = LIGHT) -> Any:
    """Input, reconstruction, anomaly map and score interval of a few images, one row each.

    Anomaly maps share one colour scale. The last column has one score axis for all rows.
    """
    subject = examples.subject
    clean = next(iter(run.of(subject, "clean")), None)
    if clean is None:
        raise InputError(f"examples: {subject.label} has no clean scores in {run.folder}")
    radius = pick_radius(run, subject) if radius is None else radius
    columns = [("input", examples.images)]
    columns += [] if examples.reconstructions is None else [("reconstruction", examples.reconstructions)]
    columns += [] if examples.maps is None else [("anomaly map", examples.maps)]
    count = len(examples.index)
    with style(theme):
        figure, _ = new_figure(6.4, 1.05 + 0.92 * count, axes=False)
        grid = figure.add_gridspec(count, len(columns) + 1, width_ratios=[1.0] * len(columns) + [3.6])
        for place, (title, pictures) in enumerate(columns):
            _draw_pictures(figure, grid, place, title, pictures)
        _name_rows(figure, clean, examples, theme)
        _example_legend(figure, theme)
        axes = figure.add_subplot(grid[:, -1])
        _draw_example_scores(axes, run, clean, examples, radius, theme)
    return figure


def _draw_pictures(figure: Any, grid: Any, column: int, title: str, pictures: Any) -> None:
    for row, picture in enumerate(pictures):
        axes = figure.add_subplot(grid[row, column])
        if picture.ndim == 2:
            axes.imshow(picture, cmap="magma", vmin=float(pictures.min()), vmax=float(pictures.max()))
        else:
            shown = np.clip(np.moveaxis(picture, 0, -1), 0.0, 1.0)
            axes.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if row == 0:
            axes.set_title(title, fontsize=8.5)


def _name_rows(figure: Any, clean: Condition, examples: Examples, theme: Theme) -> None:
    """The kind of each image beside its input; the inputs are the figure's first axes."""
    kinds = dict(zip(clean.images.index.tolist(), clean.images.defects, strict=True))
    labels = dict(zip(clean.images.index.tolist(), clean.images.labels.tolist(), strict=True))
    for axes, index in zip(figure.axes, examples.index.tolist(), strict=False):
        if index not in kinds:
            raise InputError(f"examples: image {index} is not among the scored ones; run the command again")
        colour = theme.anomalous if labels[index] else theme.normal
        axes.set_ylabel(kinds[index] if labels[index] else "normal", color=colour, fontsize=9.5)


def _draw_example_scores(
    axes: Any, run: Run, clean: Condition, examples: Examples, radius: float | None, theme: Theme
) -> None:
    certified = at_radius(run.of(examples.subject, "certified", "l2"), radius)
    attacked = at_radius(run.of(examples.subject, "attack", "l2"), radius)
    limits = score_limits(clean, certified)
    for row, index in enumerate(examples.index):
        place = np.flatnonzero(clean.images.index == index)
        anomalous = bool(clean.images.labels[place[0]])
        colour = theme.anomalous if anomalous else theme.normal
        if certified is not None and (own := np.flatnonzero(certified.images.index == index)).size:
            ends = np.clip([certified.bounds.lower[own[0]], certified.bounds.upper[own[0]]], *limits)
            axes.plot(ends, [row, row], color=colour, linewidth=9, alpha=0.3, solid_capstyle="butt")
        if attacked is not None and (own := np.flatnonzero(attacked.images.index == index)).size:
            reached = attacked.bounds.lower if anomalous else attacked.bounds.upper
            axes.plot(
                [reached[own[0]]], [row], marker="<" if anomalous else ">", color=colour, markersize=6.5
            )
        axes.plot([clean.bounds.lower[place[0]]], [row], marker="D", color=colour, markersize=6)
    draw_threshold(axes, run.threshold(examples.subject), theme, vertical=True)
    axes.set(xlim=limits, ylim=(len(examples.index) - 0.5, -0.5), yticks=[], xlabel="score")
    axes.set_title(
        "score" if radius is None else f"score, and its interval at L2 radius {short_text(radius)}",
        fontsize=9.5,
    )


def _example_legend(figure: Any, theme: Theme) -> None:
    from matplotlib.lines import Line2D

    drawn: list[dict[str, Any]] = [
        {"marker": "D", "linestyle": "", "label": "clean"},
        {"marker": ">", "linestyle": "", "label": "attacked"},
        {"linewidth": 9, "alpha": 0.4, "solid_capstyle": "butt", "label": "certified"},
        {"linewidth": 1, "linestyle": (0, (5, 3)), "label": "threshold"},
    ]
    handles = [Line2D([], [], color=theme.muted, **options) for options in drawn]
    figure.legend(handles=handles, loc="outside lower right", ncols=4, columnspacing=1.4, fontsize=9)
