"""Figures of runs: the headline curves, score distributions, examples.

    figure = headline([read_run("runs/digits8"), read_run("runs/pixel_nn")])
    figure.savefig("headline.png")

Each function returns a `matplotlib.figure.Figure` that belongs to no window and no global state: nothing is
shown, and no backend is chosen. Colours are Okabe and Ito's, told apart by the colour-blind; line styles and
markers say the same again. Matplotlib is imported when the first figure is drawn.
"""

from diffad.plots.headline import Curve, curves, gap, headline, pick_radius, subject_labels
from diffad.plots.localisation import localisation_figure
from diffad.plots.pictures import example_figure
from diffad.plots.scores import distributions
from diffad.plots.style import DARK, LIGHT, Theme, both_themes, png
from diffad.plots.sweep import sweep_figure

__all__ = [
    "DARK",
    "LIGHT",
    "Curve",
    "Theme",
    "both_themes",
    "curves",
    "distributions",
    "example_figure",
    "gap",
    "headline",
    "localisation_figure",
    "pick_radius",
    "png",
    "subject_labels",
    "sweep_figure",
]
