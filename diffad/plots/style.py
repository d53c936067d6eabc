"""How figures look, and how they are made: no pyplot, no window, no global state."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from certify.checks import InputError

DPI = 180


@dataclass(frozen=True)
class Theme:
    """Colours of a figure: text, secondary text, grid, background, series, normal and anomalous images."""

    ink: str
    muted: str
    grid: str
    paper: str
    series: tuple[str, ...]
    normal: str
    anomalous: str


LIGHT = Theme(
    ink="#1f2328",
    muted="#59636e",
    grid="#e4e7eb",
    paper="#ffffff",
    series=(
        "#0072B2",
        "#D55E00",
        "#009E73",
        "#CC79A7",
        "#E69F00",
        "#56B4E9",
        "#6b4c9a",
        "#444444",
        "#882255",
        "#999933",
        "#8c6d4f",
        "#1b7f8c",
    ),
    normal="#0072B2",
    anomalous="#D55E00",
)
DARK = Theme(
    ink="#e6e8eb",
    muted="#9aa4af",
    grid="#30363d",
    paper="#161b22",
    series=(
        "#56B4E9",
        "#F08A4B",
        "#2CC39A",
        "#E3A1C6",
        "#F0B93A",
        "#8FD0F5",
        "#B39DDB",
        "#c9d1d9",
        "#d9779f",
        "#c9c95a",
        "#c9a27c",
        "#5cc8d7",
    ),
    normal="#56B4E9",
    anomalous="#F08A4B",
)


def png(figure: Any) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def both_themes(draw: Callable[[Theme], Any]) -> tuple[bytes, bytes]:
    """The figure that `draw` makes, as PNG files in the light and in the dark theme."""
    return png(draw(LIGHT)), png(draw(DARK))


def style(theme: Theme) -> AbstractContextManager[Any]:
    """Matplotlib settings while a figure is drawn; says how to install it when it is missing."""
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise InputError(
            "figures need matplotlib, which is not installed: pip install diffad[plots]"
        ) from error
    settings: dict[str, Any] = {
        "font.size": 10.5,
        "axes.titlesize": 10.5,
        "axes.labelsize": 10.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.muted,
        "grid.color": theme.grid,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
    }
    return rc_context(settings)  # type: ignore[arg-type]


def new_figure(width: float, height: float, *, axes: bool = True) -> tuple[Any, Any]:
    """A figure (inches) outside of pyplot, so that none is ever shown or kept alive."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot() if axes else None
