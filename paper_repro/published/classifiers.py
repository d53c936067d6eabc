"""Smoothed classifiers beside what is recorded: certified accuracy at L2 radii, and the published directions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import norm

from paper_repro.papers import command
from paper_repro.published.table import Line, Table, certified, expected, folder, holds

PRESET = "cpu"
DATA = "digits, ten classes at 16 x 16, a small network"


def tables() -> list[Table]:
    """Return the published tables of both papers beside our rows."""
    return [*cohen(), *carlini()]


def levels(paper: str) -> list[dict[str, Any]]:
    """Return what is recorded of a paper, a noise level and row each."""
    files = sorted(path for path in (folder(paper, PRESET) / "levels").glob("*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def cohen() -> list[Table]:
    """Return randomized smoothing: the best noise at each radius, and the directions."""
    known, found = expected("cohen2019"), levels("cohen2019")
    if not found:
        return [unrecorded("Cohen et al.: certified accuracy", "cohen2019", known["cifar10_best_over_sigma"])]
    budget = found[0]["options"]["budget"]
    conditions = f"{DATA}; {found[0]['images']} images, n = {budget['n']}, alpha = {budget['alpha']:g}"
    lines = []
    for radius, value in known["cifar10_best_over_sigma"].items():
        best = max(found, key=lambda level: level["certified"][str(float(radius))])
        ours, sigma = best["certified"][str(float(radius))], best["options"]["sigma"]
        verdict = "easier images: above" if ours > value else "below"
        lines.append(
            Line(f"L2 {radius:g}", f"{value:g}", f"{certified(ours)} (σ {sigma:g})", conditions, verdict)
        )
    found.sort(key=lambda level: level["options"]["sigma"])
    clean = [level["certified"]["0.0"] for level in found]
    far = [level["certified"]["0.75"] for level in found]
    limits = [level["options"]["sigma"] * norm.ppf(budget["alpha"] ** (1 / budget["n"])) for level in found]
    beyond = [
        value
        for level, limit in zip(found, limits, strict=True)
        for radius, value in level["certified"].items()
        if float(radius) > limit
    ]
    falls, grows = clean == sorted(clean, reverse=True), far == sorted(far)
    shown = [", ".join(certified(value) for value in values) for values in (clean, far)]
    sigmas = ", ".join(f"{level['options']['sigma']:g}" for level in found)
    for name, holding, ours, words in (
        ("accuracy falls as σ grows", falls, shown[0], f"σ {sigmas}"),
        ("the larger σ certifies more far out", grows, shown[1], f"at .75, σ {sigmas}"),
        (
            "nothing beyond what n draws prove",
            not any(beyond),
            f"{max(beyond, default=0.0):.3f}",
            "the largest beyond it",
        ),
    ):
        lines.append(Line(name, "direction", ours, conditions, holds(holding, words)))
    lines.append(broken(found, conditions))
    return [Table("Cohen et al.: certified accuracy of a smoothed classifier (CIFAR-10 there)", tuple(lines))]


def carlini() -> list[Table]:
    """Return diffusion-denoised smoothing: the three rows at each noise level."""
    known, found = expected("carlini2022"), levels("carlini2022")
    title = "Carlini, Tramer et al.: certified accuracy of a classifier behind a denoiser (ImageNet there)"
    if not found:
        return [unrecorded(title, "carlini2022", known["imagenet"])]
    budget = found[0]["options"]["budget"]
    conditions = f"{DATA}; {found[0]['images']} images, n = {budget['n']}, alpha = {budget['alpha']:g}"
    lines = []
    for radius, value in known["imagenet"].items():
        denoised = [level for level in found if level["options"]["row"] == "denoised"]
        best = max((level["certified"][str(float(radius))] for level in denoised), default=None)
        lines.append(
            Line(f"L2 {radius:g}", f"{value:g}", certified(best), conditions, "other images: no target")
        )
    for sigma in sorted({level["options"]["sigma"] for level in found}):
        own = {
            level["options"]["row"]: level["certified"]["0.25"]
            for level in found
            if level["options"]["sigma"] == sigma
        }
        if len(own) == 3:
            ours = ", ".join(f"{name} {certified(value)}" for name, value in own.items())
            far = holds(own["denoised"] > own["plain"], "far more than alone")
            level = holds(
                own["denoised"] >= own["noise-trained"], "at least as much as one trained with noise"
            )
            lines.append(Line(f"σ {sigma:g} at .25", "direction", ours, conditions, f"{far}; {level}"))
    lines.append(broken(found, conditions))
    return [Table(title, tuple(lines))]


def broken(found: Sequence[Mapping[str, Any]], conditions: str) -> Line:
    """Return how many certified images an attack broke: it has to be none."""
    count = sum(level["broken"] for level in found)
    return Line(
        "certified images broken by the attack", "0", str(count), conditions, holds(count == 0, "none may be")
    )


def unrecorded(title: str, paper: str, known: Mapping[float, float]) -> Table:
    """Return the published values of a paper that nothing is recorded of."""
    verdict = f"not recorded yet: `{command(paper, PRESET)}`"
    return Table(
        title, tuple(Line(f"L2 {radius:g}", f"{value:g}", verdict=verdict) for radius, value in known.items())
    )
