"""From a trained network to a detector: statistics of normals, timestep and score chosen, threshold, folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from certify.console import say
from certify.files import write_json
from certify.text import floor_text, short_text
from diffad.data import DataSplit
from diffad.detector import allowed_quantile
from diffad.diffusion.config import TrainConfig
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser
from diffad.diffusion.scores import PATCH_SCORES, scales_for
from diffad.diffusion.select import Candidate, Grid, configured, selection_table
from diffad.precision import exact_float32
from diffad.ranking import certifies_something

SELECTION = "selection.json"


@exact_float32()
def finish(config: TrainConfig, denoiser: Denoiser, split: DataSplit) -> DiffusionDetector:
    """Build, choose, calibrate and save the detector; `selection.json` keeps the table that the choice rests on.

    Everything is computed where the network is, in the float32 of the commands that will score with the detector.
    """
    device = denoiser.alphas_cumprod.device
    _, channels, height, width = split.train.images.shape
    image_shape = (channels, height, width)
    detector = DiffusionDetector.from_denoiser(
        denoiser,
        image_shape,
        scales=scales_for(image_shape),
        sigma=config.select_sigmas[0],
        draws=config.draws,
        patch_size=config.patch_sizes[0],
        autocast=config.autocast_scoring,
        seed=config.seed,
    ).fit(split.train.images.to(device), seed=config.seed)
    detector.fit_statistics(split.train.images, config.select_sigmas)
    grid = selection_grid(config)
    table = selection_table(detector, split.validation, "reference", grid, device=str(device))
    chosen = configured(detector, table[0])
    chosen.fit_info = detector.fit_info
    calibration = split.calibration.images.to(device)
    chosen.calibrate(calibration, quantile=allowed_quantile(len(calibration)))
    folder = Path(config.output_dir)
    chosen.save_pretrained(folder)
    write_json(folder / SELECTION, selection_record(grid, table))
    say(choice_text(grid, table))
    return chosen


def choice_text(grid: Grid, table: Sequence[Candidate]) -> str:
    """Return what was chosen, and how well it does on validation data, for people."""
    best = table[0]
    proved = [(r, value) for r, value in zip(grid.radii, best.certified, strict=True) if r > 0]
    at = ", ".join(f"{floor_text(value, 3)} at {short_text(r)}" for r, value in proved)
    text = f"chosen of {len(table)} ({SELECTION}): score {best.score_name}, sigma {best.sigma:g}; on held-out normals "
    text += f"and synthetic defects AUROC {best.clean:.3f}" + (f", certified at L2 {at}" if proved else "")
    if not certifies_something(table):
        text += ". Nothing is certified there by any: the clean AUROC decided"
    return text


def selection_grid(config: TrainConfig) -> Grid:
    """Return what is tried: every score asked for, patch scores with every window, at every noise."""
    sizes = config.patch_sizes
    scores = [
        (name, size)
        for name in config.select_scores
        for size in (sizes if name in PATCH_SCORES else sizes[:1])
    ]
    return Grid(
        sigmas=config.select_sigmas,
        inner_sigmas=tuple(s for s in config.select_sigmas if s <= 0.5) or config.select_sigmas[:1],
        scores=tuple(scores),
        radii=config.select_radii,
        draws=config.select_draws,
        images=config.select_images,
        seed=config.seed,
    )


def selection_record(grid: Grid, table: list[Candidate]) -> dict[str, object]:
    """As JSON: the plan and all candidates, best first."""
    return {
        "data": "validation (held-out normals, synthetic defects)",
        "grid": asdict(grid),
        "candidates": [candidate.row() for candidate in table],
    }
