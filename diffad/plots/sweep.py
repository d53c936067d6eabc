"""The figure of a sweep: what the best choice of each way would certify, against the radius."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffad.plots.headline import draw_half
from diffad.plots.style import LIGHT, Theme, new_figure, style
from diffad.sweep import Choice


def sweep_figure(
    choices: Sequence[Choice],
    radii: Sequence[float],
    judged: Sequence[float],
    *,
    title: str = "",
    theme: Theme = LIGHT,
) -> Any:
    """Certified AUROC on validation data against the L2 radius, one line a choice; clean AUROC as diamonds.

    `radii` are those of each choice's `curve`; `judged` those that decide, marked at the foot of the figure.
    """
    with style(theme):
        figure, axes = new_figure(6.4, 4.3 + 0.22 * len(choices))
        for number, choice in reversed(list(enumerate(choices))):
            colour = theme.series[number % len(theme.series)]
            axes.plot(radii, choice.curve, color=colour, linewidth=2.0, marker="o", markersize=4.0, zorder=3)
            diamond: dict[str, Any] = {"marker": "D", "markersize": 8.0, "markeredgecolor": theme.paper}
            axes.plot([0.0], [choice.clean], color=colour, zorder=4, clip_on=False, **diamond)
        draw_half(axes, theme)
        axes.plot(judged, [0.0] * len(judged), color=theme.muted, marker="^", linestyle="", clip_on=False)
        right = max(radii) or 1.0
        axes.set(xlim=(-0.02 * right, 1.03 * right), ylim=(-0.02, 1.03))
        axes.set_xlabel("L2 size of the attack on each image (pixel values in [0, 1])")
        axes.set_ylabel("AUROC, as it would be certified")
        axes.set_title(title, loc="left")
        _legends(figure, choices, theme)
    return figure


def _legends(figure: Any, choices: Sequence[Choice], theme: Theme) -> None:
    """One legend for which (colour, above the axes) and one for what (marker, below)."""
    from matplotlib.lines import Line2D

    which = [
        Line2D([], [], color=theme.series[i % len(theme.series)], linewidth=3.5, label=choice.label)
        for i, choice in enumerate(choices)
    ]
    figure.legend(handles=which, loc="outside upper left", ncols=1, handlelength=1.2)
    certified = Line2D([], [], color=theme.muted, marker="o", markersize=4, linewidth=2.0)
    clean = Line2D([], [], color=theme.muted, marker="D", linestyle="")
    judged = Line2D([], [], color=theme.muted, marker="^", linestyle="")
    figure.legend(
        [certified, clean, judged],
        ["would be certified", "clean", "radii that decide"],
        loc="outside lower center",
        ncols=3,
        columnspacing=1.8,
        fontsize=9,
    )
