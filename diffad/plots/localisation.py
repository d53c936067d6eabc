"""Where a detector sees defects: image, mask, and its anomaly map on the clean and on the attacked image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from certify.checks import InputError
from diffad.plots.style import LIGHT, Theme, new_figure, style

WIDTH = 1.25  # of one picture, inches
BRIGHTEST = (
    99.9  # percentile of the shown map values that takes the last colour, so that one pixel does not set it
)


def localisation_figure(
    images: Any,
    masks: Any,
    maps: Mapping[str, Any],
    names: Sequence[str],
    *,
    theme: Theme = LIGHT,
) -> Any:
    """One row an image: the image, its mask, and one anomaly map for each entry of `maps` on one colour scale.

    Args:
        images: (k, channel, height, width) in [0, 1], the clean ones.
        masks: bool (k, height, width).
        maps: (k, height, width) by column title, for example `clean` and `attacked, Linf 2/255`.
        names: of the rows.
    """
    count = len(images)
    if not count or not maps or len(names) != count:
        raise InputError(
            f"figure: got {count} images, {len(names)} names and {len(maps)} maps, need some of each"
        )
    columns = [("image", np.asarray(images)), ("defect", np.asarray(masks))]
    columns += [(title, np.asarray(shown)) for title, shown in maps.items()]
    values = np.concatenate([shown.ravel() for _, shown in columns[2:]])
    scale = (float(values.min()), float(np.percentile(values, BRIGHTEST)))
    with style(theme):
        figure, _ = new_figure(WIDTH * len(columns) + 0.8, WIDTH * count + 0.4, axes=False)
        grid = figure.subplots(count, len(columns), squeeze=False)
        for place, (title, pictures) in enumerate(columns):
            for axes, picture in zip(grid[:, place], pictures, strict=True):
                drawn = _draw(axes, picture, scale)
            grid[0, place].set_title(title, fontsize=8.5)
        for axes, name in zip(grid[:, 0], names, strict=True):
            axes.set_ylabel(name, fontsize=9.5, color=theme.normal if name == "normal" else theme.anomalous)
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
        bar = figure.colorbar(drawn, ax=grid, shrink=min(1.0, 3 / count), aspect=24, pad=0.015)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    return figure


def _draw(axes: Any, picture: Any, scale: tuple[float, float]) -> Any:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if picture.dtype == np.bool_:
        return axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    if picture.ndim == 2:
        return axes.imshow(picture, cmap="magma", vmin=scale[0], vmax=scale[1], interpolation="nearest")
    shown = np.clip(np.moveaxis(picture, 0, -1), 0.0, 1.0)
    shown = shown[..., 0] if shown.shape[-1] == 1 else shown
    return axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
