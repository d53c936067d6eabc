"""A run folder in memory, and runs that belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certify.text import short_text
from diffad.conditions import Condition, Subject
from diffad.subject import MEDIAN, entry_name

# Detectors without a trained network: the rows that every certified table carries for comparison.
NETWORK_FREE = ("pixel_mean", "pca", "pixel_nn", "patch_nn", "closed_form")


@dataclass(frozen=True)
class Run:
    """A run folder in memory: its manifest and its conditions, ordered by detector, threat and radius."""

    folder: Path
    manifest: dict[str, Any]
    conditions: tuple[Condition, ...]

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The detectors scored here, each with its smoothing, in stored order."""
        return tuple(dict.fromkeys(condition.subject.score for condition in self.conditions))

    @property
    def main(self) -> tuple[Subject, ...]:
        """The subjects that the run is about: those with a network, or all where none has one."""
        learnt = tuple(subject for subject in self.subjects if subject.detector not in NETWORK_FREE)
        return learnt or self.subjects

    @property
    def joint_alpha(self) -> float | None:
        """Level of all cells of a smoothed detector, divided by `certify --joint`; None where each has its own."""
        entries = [entry["config"] for entry in self.manifest["commands"] if entry["command"] == "certify"]
        return next((float(config["alpha"]) for config in entries if config.get("joint")), None)

    @property
    def threshold_rule(self) -> str | None:
        """How `certify` set the thresholds of this folder, all in one way; None where it does not say."""
        for entry in self.manifest["commands"]:
            config = entry["config"]
            if entry["command"] == "certify" and "threshold" in config:
                if config["threshold"] == "quantile":
                    return f"quantile {config['quantile']:g} of the scores of held-out normals"
                level = f"{1 - config['quantile']:g} + {config['alpha_per_image']:g}"
                attacks = f"under L2 attacks up to {short_text(config['threshold_radius'])}"
                rate = f"are flagged at a rate of at most {level} {attacks}"
                return (
                    f"conformal: further normals {rate}, on average over calibration sets, by the true score"
                )
        return None

    def percentile(self, subject: Subject) -> float:
        """The percentile of the noisy score that is a subject's smoothed score; the median without noise."""
        own = (c for c in self.conditions if c.subject.score == subject.score)
        return next((_percentile_behind(self, c)[0] for c in own), MEDIAN)

    def threshold(self, subject: Subject) -> float | None:
        """The calibrated threshold of a subject; any of its conditions may hold it."""
        own = (c.threshold for c in self.conditions if c.subject.score == subject.score)
        return next((threshold for threshold in own if threshold is not None), None)

    def of(self, subject: Subject, condition: str, norm: str | None = None) -> tuple[Condition, ...]:
        """The conditions of one subject and kind, ordered by norm and radius."""
        return tuple(
            c
            for c in self.conditions
            if c.subject.score == subject.score and c.condition == condition and norm in (None, c.norm)
        )


def parts_of(run: Run) -> dict[tuple[Any, ...], list[Condition]]:
    """The conditions of a run by what tells one detector from another: data, name, fingerprint, purifier, percentile.

    A detector without a fingerprint is known by its folder. The percentile, and whether the noise was whole 8-bit
    levels, are asked of the commands, since rows were once not named by them.
    """
    data, detectors = run.manifest["data"], run.manifest["detectors"]
    parts: dict[tuple[Any, ...], list[Condition]] = {}
    for condition in run.conditions:
        name = entry_name(condition.subject, detectors)
        fingerprint = detectors.get(name, str(run.folder))
        about = (data["fingerprint"], data["resolution"], name.partition(",")[0], fingerprint)
        behind = (_purifier_behind(run, condition), *_percentile_behind(run, condition))
        parts.setdefault((*about, *behind), []).append(condition)
    return parts


def _purifier_behind(run: Run, condition: Condition) -> str | None:
    """What else denoised for a score: the purifier's fingerprint, its name in older manifests, None for no purifier.

    An attack may have met another purifier than the certificate in its folder, so each asks its own commands.
    """
    if condition.subject.smoothing != "denoise":
        return None
    for config in _options_behind(run, condition):
        if _smooths(config, condition.subject):
            found: str | None = config.get("purifier_fingerprint") or config.get("purifier")
            return found
    return None


def _percentile_behind(run: Run, condition: Condition) -> tuple[float, bool]:
    """The percentile of the noisy score, and whether its noise was whole 8-bit levels; the median where not recorded.

    A network-free row follows the command that it stands beside, under whichever way.
    """
    if condition.subject.smoothing in ("", "none"):
        return MEDIAN, False
    configs = _options_behind(run, condition)
    own = [config for config in configs if _smooths(config, condition.subject)]
    config = next(iter(own or configs), {})
    return float(config.get("percentile", MEDIAN)), bool(config.get("grid", False))


def _options_behind(run: Run, condition: Condition) -> list[Mapping[str, Any]]:
    """The options of the commands that may have written a condition, the last first."""
    commands = list(reversed(run.manifest["commands"]))
    attack = condition.condition == "attack"
    own = [entry for entry in commands if (entry["command"] != "certify") == attack]
    return [entry["config"] for entry in own or commands]  # clean scores may be an attack's


def _smooths(config: Mapping[str, Any], subject: Subject) -> bool:
    """Whether these options name the way and the noise of a subject."""
    at_level = bool(config.get("sigmas")) or config.get("sigma") == subject.sigma
    return bool(config.get("smoothing") == subject.smoothing and at_level)


def join_runs(runs: Iterable[Run]) -> list[Run]:
    """One run for each detector, whatever folders its results lie in.

    A certificate and an attack belong together if data, detector and purifier have the same fingerprints, and both are
    about one percentile (`parts_of`).
    Where two folders hold one condition, the later is taken.
    """
    joined: dict[tuple[Any, ...], Run] = {}
    for run in runs:
        for identity, own in parts_of(run).items():
            before = joined[identity].conditions if identity in joined else ()
            known = joined[identity].manifest["commands"] if identity in joined else []
            # all commands, since the checks of an attack stand with the command that made it
            manifest = {**run.manifest, "commands": [*known, *run.manifest["commands"]]}
            merged = {condition.key: condition for condition in (*before, *own)}
            ordered = tuple(sorted(merged.values(), key=lambda condition: condition.key))
            joined[identity] = Run(run.folder, manifest, ordered)
    return list(joined.values())
