"""`certify sweep`: way, noise, score and percentile chosen on validation data; the winner as a config."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from certify import console
from certify.checks import InputError, check_choice, check_device, check_probability
from certify.files import write_bytes, write_json, write_text
from certify.text import floor_text, short_text
from certify.ways import WAYS
from diffad.commands.select import GridOptions, grid_of
from diffad.config import parse_config
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.select import Grid
from diffad.manifest import build_manifest, describe_data, now
from diffad.plots import png, sweep_figure
from diffad.plots.style import LIGHT, style
from diffad.precision import exact_float32
from diffad.ranking import certifies_something
from diffad.results import ROWS
from diffad.sources import load_detector_and_data, noise_levels, parse_radii
from diffad.sweep import Choice, available_ways, best_of_each_way, forward_passes, sweep_choices
from diffad.tables import align

SIGMAS = (0.1, 0.25, 0.5, 1.0)  # for a detector that was trained at no noise of its own
SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class SweepConfig(GridOptions):
    """Choose way, noise, score and percentile on held-out normals against synthetic defects.

    Test images play no part, and the draws are not those of a certificate. Every way is tried on the same images
    with the same number of draws. What wins is written to winner.yaml: `certify --config .../winner.yaml`.
    """

    ways: str | None = None
    """Ways to try, comma separated: none, reference, sure, denoise, input; None: all that the detector has."""
    percentiles: str = "0.3,0.5,0.7"
    """Percentiles of the noisy score to try."""
    curve: str = "0,0.05,0.1,0.15,0.2,0.25,0.3,0.4,0.5"
    """L2 radii of the figure, and of the config of the winner."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        words = list(sys.argv[2:] if argv is None else argv)
        description = inspect.getdoc(SweepConfig) or ""
        sweep(parse_config(SweepConfig, words, prog="certify sweep", description=description), words)

    return console.run(command)


@exact_float32()
def sweep(config: SweepConfig, argv: Sequence[str]) -> list[Choice]:
    """Try everything, print the table, write sweep.json, sweep.png, winner.yaml and manifest.json."""
    started = now()
    check_device(config.device)
    with style(LIGHT):
        pass  # says that matplotlib is missing before the work, not after it
    detector, split = load_detector_and_data(config)
    grid = sweep_grid(config, detector)
    ways = ways_of(config, detector)
    folder = config.output_dir or default_folder(detector, split)
    if (folder / ROWS).exists():
        raise InputError(f"--output_dir: {folder} holds a run; a sweep needs a folder of its own")
    labels = split.validation.labels
    images = sum(min(grid.images, int((labels == label).sum())) for label in (0, 1))
    passes = forward_passes(detector, ways, grid, images)
    console.say(
        f"choosing among {', '.join(ways)} on {images} validation images of {split.name}, {grid.draws} draws each: "
        f"{passes} forward passes"
    )
    choices = sweep_choices(
        detector.to(config.device),
        split.validation,
        ways,
        grid,
        batch_size=config.batch_size,
        device=config.device,
    )
    if not choices:
        raise InputError(f"--scores: none of {config.scores} can be certified by {', '.join(ways)}")
    best = best_of_each_way(choices)
    title = f"{detector.name}, validation data of {split.name}, n = {grid.planned_n}, α = {grid.alpha:g}"
    record = {
        "data": "validation (held-out normals, synthetic defects)",
        "budget": {"images": images, "draws": grid.draws, "passes": passes},
        "grid": asdict(grid),
        "choices": [choice.row() for choice in choices],
    }
    write_json(folder / "sweep.json", record)
    write_bytes(folder / "sweep.png", png(sweep_figure(best, grid.curve, grid.radii, title=title)))
    write_text(folder / "winner.yaml", winner_text(config, grid, choices, split))
    manifest = build_manifest(
        "certify sweep",
        asdict(config),
        data=describe_data(split),
        detectors={detector.row_name: detector.fingerprint()},
        seeds={"select": grid.seed},
        started=started,
        device=config.device,
        argv=["certify sweep", *argv],
    )
    write_json(folder / "manifest.json", manifest)
    print(json.dumps({"folder": str(folder), **record}) if config.json else table_text(choices, grid.radii))
    rows = shown(choices)
    console.say(
        f"\nwritten: {folder}/sweep.json, sweep.png   next: certify --config {folder}/winner.yaml"
        + (
            ""
            if config.json or len(rows) == len(choices)
            else f"   ({len(choices)} choices, {len(rows)} shown)"
        )
    )
    return choices


def sweep_grid(config: SweepConfig, detector: Detector) -> Grid:
    """Return what is tried; a detector other than the diffusion one has its own score only."""
    if isinstance(detector, DiffusionDetector):
        grid = grid_of(config, detector)
    else:
        sigmas = SIGMAS if config.sigmas is None else noise_levels(config.sigmas, "--sigmas")
        grid = Grid(
            sigmas=sigmas,
            inner_sigmas=(),
            scores=(),
            radii=parse_radii(config.radii),
            planned_n=config.n,
            alpha=config.alpha,
            draws=config.draws,
            images=config.images,
            seed=config.seed,
        )
    check_probability(config.alpha, "--alpha")
    for name, value in (("n", config.n), ("draws", config.draws), ("images", config.images)):
        if value < 1:
            raise InputError(f"--{name}: got {value}, need at least 1")
    percentiles = noise_levels(config.percentiles, "--percentiles")
    for percentile in percentiles:
        check_probability(percentile, "--percentiles")
    curve = parse_radii(config.curve, "--curve")
    return Grid(**{**asdict(grid), "percentiles": percentiles, "curve": tuple(sorted(set(curve)))})


def ways_of(config: SweepConfig, detector: Detector) -> tuple[str, ...]:
    """Return the ways to try, all of them such as the detector has."""
    possible = available_ways(detector)
    if config.ways is None:
        return possible
    ways = tuple(dict.fromkeys(word.strip() for word in config.ways.split(",") if word.strip()))
    for way in ways:
        check_choice(way, WAYS, "--ways")
        if way not in possible:
            raise InputError(f"--ways: {detector.name} has no {way!r}; it has {', '.join(possible)}")
    if not ways:
        raise InputError(f"--ways: got {config.ways!r}, need at least one of {', '.join(possible)}")
    return ways


def default_folder(detector: Detector, split: DataSplit) -> Path:
    """Return runs/sweep-DETECTOR-DATA-RESOLUTION."""
    data = split.name.replace(":", "-").replace("/", "-")
    return Path("runs") / f"sweep-{detector.name}-{data}-{split.resolution}"


def winner_text(config: SweepConfig, grid: Grid, choices: Sequence[Choice], split: DataSplit) -> str:
    """Return the first of the choices as a YAML file that `certify --config` reads."""
    choice = choices[0]
    values: dict[str, Any] = {
        "detector": config.detector,
        "data": config.data,
        "normal_class": config.normal_class,
        "resolution": config.resolution,
        "data_seed": config.data_seed,
        "smoothing": choice.smoothing,
        "sigma": choice.sigma,
        "inner_sigma": choice.inner_sigma,
        "score": choice.score or None,
        "patch_size": choice.patch_size,
        "percentile": choice.percentile,
        "radii": ",".join(repr(radius).removesuffix(".0") for radius in sorted({*grid.curve, *grid.radii})),
        "n": grid.planned_n,
        "alpha": grid.alpha,
        "batch_size": config.batch_size,
        "device": config.device,
    }
    text = yaml.safe_dump({k: v for k, v in values.items() if v is not None}, sort_keys=False)
    radii = ", ".join(f"{short_text(radius)}" for radius in grid.radii)
    reason = f"mean certified AUROC at L2 {radii} ({floor_text(choice.merit[0], 3)}"
    if not certifies_something(choices):
        reason = f"clean AUROC, since none certifies anything at L2 {radii} ({choice.clean:.3f}"
    return (
        f"# certify --config winner.yaml\n"
        f"# Chosen by `certify sweep` on validation images of {split.name}: of all choices the one with the highest\n"
        f"# {reason} there; the best of many on few\n"
        f"# images, so expect less on test images).\n{text}"
    )


def shown(choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices that are printed, best first: the SHOWN best ones, and the best of every way."""
    ways = best_of_each_way(choices)
    return [choice for place, choice in enumerate(choices) if place < SHOWN or choice in ways]


def table_text(choices: Sequence[Choice], radii: Sequence[float]) -> str:
    """Return one line a choice, best first: validation AUROC, as it would be certified at each radius, and clean.

    What would be certified is floored, as certificates are.
    """
    header = ["way", "sigma", "inner", "score", "window", "percentile", "mean"]
    lines = [[*header, *(f"r={short_text(radius)}" for radius in radii), "clean"]]
    for choice in shown(choices):
        values = [choice.merit[0], *choice.certified]
        lines.append(
            [
                choice.smoothing,
                *("-" if value is None else f"{value:g}" for value in (choice.sigma, choice.inner_sigma)),
                choice.score or "-",
                str(choice.patch_size or "-"),
                "-" if choice.sigma is None else f"{choice.percentile:g}",
                *(floor_text(value, 3) for value in values),
                f"{choice.clean:.3f}",
            ]
        )
    return align(lines)
