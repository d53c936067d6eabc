"""What a run folder claims: its certified rows, the options behind them, and the draws they rest on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from certify.checks import InputError
from certify.store import ScoreStore
from diffad.conditions import Condition, Subject
from diffad.plan import Plan
from diffad.runs import Run
from diffad.sources import parse_radii
from diffad.subject import entry_name


@dataclass(frozen=True)
class Claim:
    """What a run claims of one subject: its clean and certified rows, each with the plan it was recorded under.

    `entry` is the name of its detector in the manifest (`diffad.subject.entry_name`), `purifier` the folder of what
    denoised for it, as the manifest names it; None if it denoised by itself.
    """

    subject: Subject
    rows: tuple[tuple[Condition, Plan], ...]
    entry: str
    purifier: str | None = None

    @property
    def name(self) -> str:
        """The subject in a line of output."""
        return self.subject.label

    @property
    def draws(self) -> int:
        """The most draws an image that any row rests on; 0 without noise."""
        return max(condition.n for condition, _ in self.rows)


def claims_of(run: Run) -> list[Claim]:
    """Return the certified subjects of a run, each row with the plan of the command that wrote it.

    Raises:
        InputError: if a row belongs to no `certify` command of the manifest.
    """
    found: dict[Subject, list[tuple[Condition, Plan]]] = {}
    purifiers: dict[Subject, str | None] = {}
    detectors = run.manifest["detectors"]
    certified = {c.subject.score for c in run.conditions if c.condition == "certified"}
    for condition in run.conditions:
        subject = condition.subject.score
        if subject in certified and condition.condition != "attack":
            config = options_behind(condition, run)
            found.setdefault(subject, []).append((condition, _plan_of(subject, config)))
            purifiers[subject] = _purifier_of(subject, entry_name(subject, detectors), config)
    if not found:
        raise InputError(f"{run.folder}: holds no certified rows; nothing to verify")
    return [
        Claim(subject, tuple(rows), entry_name(subject, detectors), purifiers[subject])
        for subject, rows in found.items()
    ]


def options_behind(condition: Condition, run: Run) -> Mapping[str, Any]:
    """Return the options of the last `certify` command that can have written a condition."""
    for entry in reversed(run.manifest["commands"]):
        config: Mapping[str, Any] = entry["config"]
        if entry["command"] != "certify" or condition.n not in (0, config["n"]):
            continue
        if condition.radius in (0.0, *parse_radii(config["radii"])):
            return config
    raise InputError(f"{run.folder}: no certify command in manifest.json has written {condition.name}")


def _plan_of(subject: Subject, config: Mapping[str, Any]) -> Plan:
    own = {field.name: config[field.name] for field in fields(Plan) if field.name in config}
    return Plan(
        **{**own, "radii": parse_radii(config["radii"])}
        | {"smoothing": subject.smoothing, "sigma": subject.sigma, "sigmas": subject.sigmas, "device": "cpu"}
    )


def _purifier_of(subject: Subject, entry: str, config: Mapping[str, Any]) -> str | None:
    """Return the folder of what denoised; the network-free rows beside the detector of the command have none."""
    main = subject.smoothing == "denoise" or entry in config.get("lipschitz", {})
    folder: str | None = config.get("purifier") if main else None
    return folder


def recorded_purifier(run: Run) -> str | None:
    """Return the fingerprint of the purifier of the run, None where it has none or does not record it."""
    entries = [entry["config"] for entry in run.manifest["commands"] if entry["command"] == "certify"]
    found = (config.get("purifier_fingerprint") for config in reversed(entries))
    return next((fingerprint for fingerprint in found if fingerprint), None)


def open_store(folder: Path) -> ScoreStore | None:
    """Return the draws kept in a folder, or None if there are none."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        store = ScoreStore(folder, record["config"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not the configuration of a score store ({error})") from error
    if record.get("hash") != store.hash:
        raise InputError(f"{path}: the configuration is not the one that its hash was made of")
    return store


def recorded_lipschitz(run: Run, detector: str) -> float | None:
    """Return the constant L that the manifest records for a detector's certificate, None where it does not."""
    for entry in reversed(run.manifest["commands"]):
        constants: Mapping[str, float] = entry["config"].get("lipschitz", {})
        if detector in constants:
            return float(constants[detector])
    return None
