"""What the rows of a run are about: a detector, its way of smoothing, and its noise, on one data set."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import NamedTuple

# How the name of a score ends if it is the sum of the percentiles at several noise levels.
SUM_OF_LEVELS = "sum_sigma="
MEDIAN = 0.5  # the percentile that names leave out


class Subject(NamedTuple):
    """What is scored: a detector with its way of smoothing (sigma in [0, 1] pixel units) on one data set.

    The sum of the percentiles at several noise levels names them at the end of its score, as in
    `l2 sum_sigma=0.5,1,2`; its `sigma` is then the largest. A percentile other than the median, and integer noise
    (`--grid`), stand before that: `l2 percentile=0.3 grid`.
    """

    dataset: str
    resolution: int
    detector: str
    smoothing: str
    score_name: str
    sigma: float | None

    @property
    def label(self) -> str:
        """Short name for legends and tables: `diffusion (l2), reference, σ = 1`, of a sum `..., σ = 0.5 + 1 + 2`."""
        score = self.score_name.partition(SUM_OF_LEVELS)[0].strip()
        own = self.detector.partition(":")[2]  # what a foreign detector's name says already
        if own and (score == own or score.startswith(f"{own} ")):
            score = score.removeprefix(own).strip()
        name = self.detector if score in ("", self.detector) else f"{self.detector} ({score})"
        smoothed = self.smoothing not in ("", "none")
        return f"{name}, {self.smoothing}, σ = {self.noise}" if smoothed and self.sigma else name

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The noise levels of a sum of percentiles; empty for one level, and without noise."""
        _, found, levels = self.score_name.partition(SUM_OF_LEVELS)
        return tuple(float(level) for level in levels.split(",")) if found else ()

    @property
    def noise(self) -> str:
        """Sigma as people write it, `0.5 + 1 + 2` for the levels of a sum; empty without noise."""
        levels = self.sigmas or (() if self.sigma is None else (self.sigma,))
        return " + ".join(f"{level:g}" for level in levels)

    @property
    def score(self) -> Subject:
        """The subject with `none` for an empty way: both name the detector's own score, without noise."""
        return self._replace(smoothing=self.smoothing or "none")


def smoothed_name(score_name: str, percentile: float, grid: bool) -> str:
    """Return the name of a score whose percentile under noise is another than the median, or under integer noise.

    Both make another function of the image, so that its certificates say nothing of attacks on the median.
    """
    words = [score_name] if percentile == MEDIAN else [score_name, f"percentile={number_text(percentile)}"]
    return " ".join([*words, *(["grid"] if grid else [])]).strip()


def sum_of_levels(score_name: str, sigmas: Sequence[float]) -> str:
    """Return the name of a score whose percentiles at these noise levels are added."""
    levels = ",".join(number_text(sigma) for sigma in sigmas)
    return f"{score_name} {SUM_OF_LEVELS}{levels}".strip()


def number_text(value: float) -> str:
    """Return a number in as few digits as give it back: 1, 0.5."""
    return repr(float(value)).removesuffix(".0")


def entry_name(subject: Subject, detectors: Container[str]) -> str:
    """Return the name by which a manifest and the folder of draws know the detector of a subject.

    It is the detector's, but for a network-free row beside a run of the same detector under another way: that one was
    fitted apart, and is entered as `pca, none`. `detectors` holds the names of the manifest.
    """
    beside = beside_name(subject.detector, subject.smoothing)
    return beside if beside in detectors else subject.detector


def folder_name(entry: str) -> str:
    """Return the name of a detector in a manifest as that of a folder: `anomalib:Patchcore` as `anomalib-Patchcore`."""
    return entry.replace(":", "-")


def beside_name(detector: str, smoothing: str) -> str:
    """Return the name of a network-free row beside a run of the same detector under another way."""
    return f"{detector}, {smoothing or 'none'}"
