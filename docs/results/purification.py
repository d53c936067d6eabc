"""Does a purifier in front of a detector help? `python docs/results/purification.py runs/digits-8 OUTPUT_FOLDER`.

DiffPure (Nie et al., ICML 2022) adds noise and lets a diffusion model take it out before a detector looks. A model that
was trained on normals alone redraws as normal what it has not seen: with enough noise to wash out a perturbation, the
anomaly goes as well. For each noise of the purifier, and without one, this measures `pixel_nn` on digits of one class:
clean, and attacked in L2 through the purifier (fresh noise each pass; exact gradients of the score and of its smooth
stand-in `soft_nn`, for each image the worst of both). Writes purification.json, purification.png and manifest.json; a
few minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certify import ScoreBounds, auroc, delong_interval
from certify.files import write_bytes, write_json
from certify.noise import gaussian_noise
from diffad import detector_class, load_detector
from diffad.attacks import RandomTarget, attack
from diffad.data import DataSplit, load_data
from diffad.diffusion.purified import Purified
from diffad.manifest import build_manifest, describe_data, now
from diffad.plots import LIGHT, png

SIGMAS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)  # 0: no purifier
RADII = (0.25,)
OBJECTIVES = (None, "soft_nn")
SHOWN = (2, 5)  # normal and anomalous images in the picture


def main() -> int:
    """Measure, write, print; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", type=Path, help="a diffusion detector trained on digits")
    parser.add_argument("output", type=Path)
    parser.add_argument("--normal_class", default="8")
    parser.add_argument("--limit", type=int, help="test images of each label; all unless given")
    parser.add_argument("--sigmas", type=float, nargs="+", default=list(SIGMAS))
    parser.add_argument("--steps", type=int, default=15, help="of each attack")
    parser.add_argument("--eot", type=int, default=4, help="noise draws a gradient")
    parser.add_argument("--draws", type=int, default=16, help="fresh draws behind a reported score")
    options, started = parser.parse_args(), now()
    network = load_detector(options.network)
    split = load_data("digits", normal_class=options.normal_class, limit=options.limit)
    neighbour = detector_class("pixel_nn")().fit(split.train.images)
    detectors = {
        sigma: Purified.of(neighbour, network, sigma=sigma).fit(split.train.images) if sigma else neighbour
        for sigma in sorted(options.sigmas)
    }
    rows = [row for sigma, detector in detectors.items() for row in measure(detector, sigma, split, options)]
    write_json(options.output / "purification.json", {"data": split.name, "rows": rows})
    write_bytes(options.output / "purification.png", png(figure(rows, split, detectors)))
    manifest = build_manifest(
        "docs/results/purification.py",
        vars(options),
        data=describe_data(split),
        detectors={"diffusion": network.fingerprint(), "pixel_nn": neighbour.fingerprint()},
        seeds={"attack": 0},
        started=started,
        argv=sys.argv,
    )
    write_json(options.output / "manifest.json", manifest)
    return 0


def measure(
    detector: Any, sigma: float, split: DataSplit, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return a row for the clean images and one for each radius; print them."""
    labels = split.test.labels.numpy()
    target = RandomTarget(detector, draws=options.draws) if sigma else detector
    rows: list[dict[str, Any]] = []
    for radius in RADII:
        found = [
            attack(
                target,
                split.test.images,
                labels,
                norm="l2",
                eps=radius,
                method="apgd",
                steps=options.steps,
                eot=options.eot if sigma else 1,
                objective=objective,
            )
            for objective in OBJECTIVES
        ]
        if not rows:
            rows.append(row_of(sigma, 0.0, np.asarray(found[0].clean_scores), labels))
        towards = np.where(labels == 0, 1.0, -1.0)
        worst = towards * np.max([towards * one.scores for one in found], axis=0)
        rows.append(row_of(sigma, radius, worst, labels))
    for row in rows:
        low, high = row["interval"]
        print(
            f"sigma {sigma:<5g} radius {row['radius']:<5g} AUROC {row['auroc']:.3f} [{low:.3f}, {high:.3f}]",
            flush=True,
        )
    return rows


def row_of(sigma: float, radius: float, scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the AUROC with DeLong's 95 % interval, and the quartiles of both labels' scores."""
    bounds = ScoreBounds.exact(scores)
    interval = delong_interval(bounds, labels, "both")
    quartiles = {
        name: [float(value) for value in np.quantile(scores[labels == label], (0.25, 0.5, 0.75))]
        for label, name in enumerate(("normals", "anomalies"))
    }
    return {
        "sigma": sigma,
        "radius": radius,
        "auroc": float(auroc(bounds, labels, "both")),
        "interval": [interval.low, interval.high],
        **quartiles,
    }


def purified(detector: Any, sigma: float, images: Tensor) -> Tensor:
    """Return what the detector behind the purifier sees of the images: one noise draw, the same for all."""
    if not sigma:
        return images
    noise = torch.from_numpy(gaussian_noise(0, 0, "evaluate", 0, tuple(images.shape[1:]))).float()
    with torch.no_grad():
        seen: Tensor = detector.reconstruct(images + sigma * noise, sigma).clamp(0.0, 1.0)
    return seen


def chosen(split: DataSplit) -> list[int]:
    """Return the first normals of the test set, and the first image of each of the first other classes."""
    labels, kinds = split.test.labels.tolist(), split.test.defects
    normals = [place for place, label in enumerate(labels) if label == 0][: SHOWN[0]]
    first: dict[str, int] = {}
    for place, kind in enumerate(kinds):
        if labels[place] == 1:
            first.setdefault(kind, place)
    return [*normals, *(first[kind] for kind in sorted(first)[: SHOWN[1]])]


def figure(rows: Sequence[dict[str, Any]], split: DataSplit, detectors: dict[float, Any]) -> Any:
    """Above: images before and after purification. Below: AUROC, and the scores of both labels, against the noise."""
    from diffad.plots.style import new_figure, style

    places = chosen(split)
    with style(LIGHT):
        drawing, _ = new_figure(6.6, 9.4, axes=False)
        above, below = drawing.subfigures(2, 1, height_ratios=[2.3, 1.0])
        draw_pictures(above, split, places, detectors)
        left, right = below.subplots(1, 2)
        draw_areas(left, rows)
        draw_scores(right, [row for row in rows if row["radius"] == 0])
    return drawing


def draw_pictures(above: Any, split: DataSplit, places: Sequence[int], detectors: dict[float, Any]) -> None:
    """Fill a grid: a row an image, a column a noise of the purifier."""
    grid = above.subplots(len(places), len(detectors), squeeze=False)
    images = split.test.images[list(places)]
    for column, (sigma, detector) in enumerate(detectors.items()):
        for axes, picture in zip(grid[:, column], purified(detector, sigma, images), strict=True):
            axes.imshow(picture[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        grid[0, column].set_title(f"σ = {sigma:g}" if sigma else "image", fontsize=9.5)
    for axes, place in zip(grid[:, 0], places, strict=True):
        anomalous = bool(split.test.labels[place])
        axes.set_ylabel(
            split.test.defects[place] if anomalous else "normal",
            fontsize=9,
            color=LIGHT.anomalous if anomalous else LIGHT.normal,
        )


def draw_areas(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """AUROC clean and at each radius, with its interval."""
    for place, radius in enumerate((0.0, *RADII)):
        own = [row for row in rows if row["radius"] == radius]
        name = f"attacked, L2 {radius:g}" if radius else "clean"
        ends = np.array([row["interval"] for row in own]).T
        at, colour = np.arange(len(own)), LIGHT.series[place]
        axes.plot(at, [row["auroc"] for row in own], marker="os^"[place], color=colour, label=name)
        axes.fill_between(at, *ends, color=colour, alpha=0.12, linewidth=0)
    axes.axhline(0.5, color=LIGHT.muted, linewidth=0.8, linestyle=(0, (2, 2)))
    axes.set(ylim=(0, 1.02), ylabel="AUROC of pixel_nn", title="")
    name_noise(axes, [row["sigma"] for row in rows if row["radius"] == 0])
    axes.legend(fontsize=8.5, loc="lower left")


def draw_scores(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Median and quartiles of the clean scores of both labels."""
    at = np.arange(len(rows))
    for name, colour in (("normals", LIGHT.normal), ("anomalies", LIGHT.anomalous)):
        low, middle, high = np.array([row[name] for row in rows]).T
        axes.plot(at, middle, marker="o", color=colour, label=name)
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(ylim=(0, None), ylabel="clean score: median, quartiles")
    name_noise(axes, [row["sigma"] for row in rows])
    axes.legend(fontsize=8.5, loc="lower left")


def name_noise(axes: Any, sigmas: Sequence[float]) -> None:
    """Name the places of an axis by the purifier's noise."""
    axes.set_xticks(range(len(sigmas)), [f"{sigma:g}" if sigma else "none" for sigma in sigmas])
    axes.set_xlabel("σ of the purifier")


if __name__ == "__main__":
    raise SystemExit(main())
