"""A run folder in memory, and runs that belong together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certify.text import short_text
from diffad.conditions import Condition, Subject
from diffad.subject import entry_name

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
        """Level of the whole certified table where `certify --joint` divided it; None where each cell has its own."""
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
    """The conditions of a run by what tells one detector from another: data, name, fingerprint and purifier.

    A detector without a fingerprint is known by its folder.
    """
    data, detectors = run.manifest["data"], run.manifest["detectors"]
    parts: dict[tuple[Any, ...], list[Condition]] = {}
    for condition in run.conditions:
        name = entry_name(condition.subject, detectors)
        fingerprint = detectors.get(name, str(run.folder))
        about = (data["fingerprint"], data["resolution"], name.partition(",")[0], fingerprint)
        parts.setdefault((*about, _purifier_behind(run, condition)), []).append(condition)
    return parts


def _purifier_behind(run: Run, condition: Condition) -> str | None:
    """What else denoised for a score: the purifier's fingerprint, its name in older manifests, None for no purifier.

    An attack may have met another purifier than the certificate in its folder, so each asks its own commands.
    """
    subject = condition.subject
    if subject.smoothing != "denoise":
        return None
    commands = list(reversed(run.manifest["commands"]))
    attack = condition.condition == "attack"
    own = [entry for entry in commands if (entry["command"] != "certify") == attack]
    for config in (entry["config"] for entry in own or commands):  # clean scores may be an attack's
        at_level = config.get("sigmas") or config.get("sigma") == subject.sigma
        if config.get("smoothing") == "denoise" and at_level:
            found: str | None = config.get("purifier_fingerprint") or config.get("purifier")
            return found
    return None


def join_runs(runs: Iterable[Run]) -> list[Run]:
    """One run for each detector, whatever folders its results lie in.

    A certificate and an attack belong together if data, detector and purifier have the same fingerprints (`parts_of`).
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
