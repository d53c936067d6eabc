"""`diffad select`: noise and score of one way of smoothing, chosen on validation data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from certify import console
from certify.checks import InputError, check_choice
from certify.files import write_json
from certify.text import short_text
from diffad.config import parse_config
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.finish import selection_record
from diffad.diffusion.scores import PATCH_SCORES, SCORE_NAMES, ScoreName
from diffad.diffusion.select import Candidate, Grid, selection_table
from diffad.precision import exact_float32
from diffad.sources import DataOptions, load_detector_and_data, noise_levels, parse_radii
from diffad.tables import align


@dataclass(frozen=True, kw_only=True)
class GridOptions(DataOptions):
    """What is tried on validation data, and the certificate to come that it is judged by."""

    sigmas: str | None = None
    """Smoothing noise to try, comma separated, [0, 1] pixel units; None: the levels that training tried."""
    inner_sigmas: str | None = None
    """Noise of the detector itself to try, for input and denoise; None: the levels that training tried, up to 0.5."""
    scores: str = "l2,root_max,patch_max"
    """Scores to try: root_max, l2, patch_max, patch_relative; for input and denoise also paper."""
    patch_sizes: str | None = None
    """Windows of the patch scores to try; None: the detector's."""
    radii: str = "0.1,0.25"
    """L2 radii over which the certified AUROC is averaged."""
    n: int = 1000
    """Noise draws an image of the certificate to come."""
    alpha: float = 0.001
    """Its error probability, all images together."""
    draws: int = 300
    """Noise draws an image spent here."""
    images: int = 50
    """Validation images of each label, at most."""
    batch_size: int = 250
    device: str = "cpu"
    seed: int = 0
    json: bool = False
    """Print one JSON object instead of a table."""


@dataclass(frozen=True, kw_only=True)
class SelectConfig(GridOptions):
    """Rank noise and score of a diffusion detector for one way of smoothing; test images play no part."""

    smoothing: Literal["reference", "denoise", "input"] = "reference"
    """The way of smoothing that is chosen for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        select(parse_config(SelectConfig, argv, prog="diffad select", description=str(SelectConfig.__doc__)))

    return console.run(command)


@exact_float32()
def select(config: SelectConfig) -> list[Candidate]:
    """Print the candidates best first; with --output_dir also keep them in selection-WAY.json."""
    detector, split = load_detector_and_data(config)
    if not isinstance(detector, DiffusionDetector):
        raise InputError(f"--detector: {detector.name} has no noise to choose; need a diffusion detector")
    grid = grid_of(config, detector)
    table = selection_table(
        detector.to(config.device),
        split.validation,
        config.smoothing,
        grid,
        batch_size=config.batch_size,
        device=config.device,
    )
    if not table:
        raise InputError(f"--scores: none of {config.scores} can be certified by the way {config.smoothing}")
    record = {"smoothing": config.smoothing, **selection_record(grid, table)}
    if config.output_dir is not None:
        path = config.output_dir / f"selection-{config.smoothing}.json"
        write_json(path, record)
        console.say(f"written: {path}")
    print(json.dumps(record) if config.json else table_text(table, grid.radii))
    source = "" if config.detector is None else f"--detector {config.detector} "
    console.say(f"\nbest: certify {source}{flags(table[0])}")
    return table


def grid_of(config: GridOptions, detector: DiffusionDetector) -> Grid:
    """Return what is tried, with the defaults that the detector gives filled in."""
    tried = tuple(detector.statistics_sigmas_.tolist())
    names = [name.strip() for name in config.scores.split(",") if name.strip()]
    for name in names:
        check_choice(name, SCORE_NAMES, "--scores")
    sizes = (detector.patch_size,) if config.patch_sizes is None else window_sizes(config.patch_sizes)
    scores = [
        (cast(ScoreName, name), size)
        for name in names
        for size in (sizes if name in PATCH_SCORES else sizes[:1])
    ]
    inner = tuple(sigma for sigma in tried if sigma <= 0.5) or tried[:1]
    if config.inner_sigmas is not None:
        inner = noise_levels(config.inner_sigmas, "--inner_sigmas")
    return Grid(
        sigmas=tried if config.sigmas is None else noise_levels(config.sigmas, "--sigmas"),
        inner_sigmas=inner,
        scores=tuple(scores),
        radii=parse_radii(config.radii),
        planned_n=config.n,
        alpha=config.alpha,
        draws=config.draws,
        images=config.images,
        seed=config.seed,
    )


def window_sizes(text: str) -> tuple[int, ...]:
    """Read comma separated integers of at least 1."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--patch_sizes: got {text!r}, need integers of at least 1 such as 5,9")
    return tuple(int(part) for part in parts)


def flags(candidate: Candidate) -> str:
    """Return the flags by which `certify` and `diffad attack` take a candidate."""
    words = [f"--smoothing {candidate.smoothing}", f"--sigma {candidate.sigma:g}"]
    if candidate.inner_sigma is not None:
        words.append(f"--inner_sigma {candidate.inner_sigma:g}")
    words.append(f"--score {candidate.score_name}")
    if candidate.score_name in PATCH_SCORES:
        words.append(f"--patch_size {candidate.patch_size}")
    return " ".join(words)


def table_text(table: Sequence[Candidate], radii: Sequence[float]) -> str:
    """Return one line a candidate: validation AUROC, clean and as it would be certified at each radius."""
    lines = [
        [
            "score",
            "window",
            "sigma",
            "inner",
            "mean",
            *(f"r={short_text(radius)}" for radius in radii),
            "clean",
        ]
    ]
    for candidate in table:
        window = str(candidate.patch_size) if candidate.score_name in PATCH_SCORES else "-"
        inner = "-" if candidate.inner_sigma is None else f"{candidate.inner_sigma:g}"
        values = [candidate.merit[0], *candidate.certified, candidate.clean]
        lines.append(
            [
                candidate.score_name,
                window,
                f"{candidate.sigma:g}",
                inner,
                *(f"{value:.3f}" for value in values),
            ]
        )
    return align(lines)
