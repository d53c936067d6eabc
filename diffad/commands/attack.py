"""`diffad attack`: how far the scores of a detector can be pushed, at one radius or along a curve."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from certify import console
from certify.checks import InputError, check_choice
from certify.shards import current_shard
from diffad.attack_evaluation import AttackOptions, attack_detector, conditions_of
from diffad.attack_followup import check_reached, gather_evidence
from diffad.attack_record import attack_record
from diffad.attacks import ATTACKS, ENSEMBLES, PRESETS, ThreatModel
from diffad.attacks.checks import CheckOutcome
from diffad.attacks.store import AttackStore
from diffad.conditions import Condition
from diffad.config import parse_config
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.evidence import write_evidence
from diffad.manifest import build_manifest, describe_data, now
from diffad.metric_rows import Row, auroc_table
from diffad.plan import Plan, default_smoothing, load_purifier
from diffad.precision import exact_float32
from diffad.registry import load_detector
from diffad.results import MANIFEST, read_run, refuse_foreign, write_run
from diffad.sources import SmoothedOptions, at_sigma, load_sources, parse_radii, smoothing_levels
from diffad.subject import folder_name
from diffad.tables import format_table
from diffad.world_size import check_world_size


@dataclass(frozen=True, kw_only=True)
class AttackConfig(SmoothedOptions):
    """Attack a detector: normals up, anomalies down, the worst score reached for each image."""

    norm: Literal["l2", "linf"] = "l2"
    eps: str = "0.25"
    """Size of the perturbation in [0, 1] pixel units; 8/255 is understood."""
    curve: str | None = None
    """Several sizes, comma separated, instead of --eps; each starts from the one before."""
    smoothing: Literal["input", "denoise", "reference", "sure", "none", "plain"] | None = None
    """What is attacked: the percentile under noise that `certify` speaks of, or the plain score."""
    method: str = "pgd"
    """An attack (pgd, apgd, square, ...), a preset of a paper (pgd-100), `ensemble`, or by scores alone `black_box`;
    a wrong name lists all."""
    objective: str | None = None
    """Differentiate another function of the detector instead of its score, by name; the score judges what it finds."""
    sources: str | None = None
    """Detectors to craft the images of --method transfer on: folders, or names to fit here, comma separated."""
    steps: int | None = None
    """Gradient steps, or score queries of a method without gradients; None: those of the method."""
    eot: int = 16
    """Noise draws a gradient step."""
    fresh_draws: int | None = None
    """With --smoothing plain: attack the mean score under so many fresh draws of the detector's own noise."""
    restarts: int = 1
    checks: Literal["none", "mandatory", "small", "full"] = "small"
    """Look for signs that the attack failed rather than that the detector is robust: on a few images, or on all;
    mandatory: on a few, and only what a table withholds a number for."""
    side: Literal["in", "out", "both"] | None = None
    """Print one side only; all are recorded."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        config = parse_config(AttackConfig, argv, prog="diffad attack", description=str(AttackConfig.__doc__))
        attack(config, list(sys.argv[2:] if argv is None else argv))

    return console.run(command)


@exact_float32()
def attack(config: AttackConfig, argv: Sequence[str]) -> Path:
    """Attack as `config` says, write the run folder, print the table; return the folder."""
    started = now()
    radii = attacked_radii(config)  # refuses what is out of range before a detector is loaded or trained
    check_choice(config.method, (*ATTACKS, *ENSEMBLES, *PRESETS), "--method")
    shard = current_shard()
    check_world_size(1 if shard is None else shard.world)
    detector, split = load_sources(config, may_train=shard is None)
    plan = plan_of(config, detector, radii)
    detector = at_sigma(detector, plan.smoothing, plan.sigma, config.inner_sigma)
    sources, purifier = load_transfer_sources(config, split), load_purifier(config.purifier)
    options = options_of(config, radii, sources)
    data = split.name.replace(":", "-").replace("/", "-")
    folder = config.output_dir or Path("runs") / f"attack-{folder_name(detector.row_name)}-{data}"
    denoised_by = None if purifier is None else purifier.fingerprint()
    described, fingerprints = describe_data(split), {detector.row_name: detector.fingerprint()}
    refuse_another_score(folder, config, plan, denoised_by)
    refuse_foreign(folder, described, fingerprints)
    console.say(
        f"attacking {detector.name} on {split.name}, {len(split.test)} test images, {config.norm} "
        f"{', '.join(f'{radius:g}' for radius in radii)}, {options.name}"
    )
    identity = {
        "detector": fingerprints[detector.row_name],
        "purifier": denoised_by,
        "sources": {name: source.fingerprint() for name, source in sources.items()},
        "compile": config.compile,
    }
    store = AttackStore(folder / "draws" / "attack", identity, shard)
    reached = attack_detector(detector, split, plan, options, purifier=purifier, store=store)
    evidence = gather_evidence(detector, split, plan, reached, purifier=purifier, store=store)
    if shard is not None and shard.rank > 0:
        return folder  # every process has all results; the first one checks, writes and prints
    outcomes: list[list[CheckOutcome]] = [[] for _ in reached]
    if config.checks != "none":
        outcomes = check_reached(detector, split, plan, options, reached, config.checks, purifier=purifier)
    conditions = conditions_of(detector, split, plan, options, reached)
    for condition, kept in zip(conditions[1:], evidence, strict=True):
        write_evidence(folder, condition, kept)
    records = [
        attack_record(condition, one.found, found, seconds=one.seconds)
        for condition, one, found in zip(conditions[1:], reached, outcomes, strict=True)
    ]
    chosen: dict[str, Any] = {"smoothing": plan.smoothing, "sigma": plan.sigma, "sigmas": plan.sigmas}
    chosen |= {"arguments": detector.config(), "purifier_fingerprint": denoised_by}
    manifest = build_manifest(
        "diffad attack",
        {**asdict(config), **chosen, "source_detectors": identity["sources"]},
        data=described,
        detectors=fingerprints,
        seeds={"attack": config.seed, "evaluate": config.seed, "evidence": config.seed + 1},
        started=started,
        device=config.device,
        world_size=1 if shard is None else shard.world,
        argv=["diffad", "attack", *argv],
        attacks=records,
    )
    run = write_run(folder, manifest, without_known_clean(folder, conditions))
    report_checks(outcomes)
    show(config, auroc_table(run), folder)
    return folder


def report_checks(outcomes: Sequence[Sequence[CheckOutcome]]) -> None:
    """Say on stderr which checks failed, or that none did."""
    ran = [one for found in outcomes for one in found if one.passed is not None]
    failed = [one for one in ran if one.failed]
    for one in failed:
        console.say(f"check {one.sentence}")
    if ran and not failed:
        console.say(f"{len(ran)} checks of the attack ran, none failed")


def attacked_radii(config: AttackConfig) -> list[float]:
    """Return the radii above 0 that are asked for, each once, the smallest first."""
    asked = parse_radii(config.curve or config.eps, "--curve" if config.curve else "--eps")
    radii = sorted({radius for radius in asked if radius > 0})
    if not radii:
        raise InputError("--eps, --curve: got no size above 0, need at least one")
    for radius in radii:
        ThreatModel.parse(config.norm, radius)
    return radii


def plan_of(config: AttackConfig, detector: Detector, radii: Sequence[float]) -> Plan:
    """Return the plan by which `certify` would smooth the detector; an empty way for the plain score."""
    smoothing = "" if config.smoothing == "plain" else config.smoothing or default_smoothing(detector)
    sigma, sigmas = smoothing_levels(config.sigma)
    sigma = sigma if sigma is not None else getattr(detector, "sigma", None)
    if smoothing not in ("", "none") and sigma is None:
        raise InputError(f"--sigma: the way {smoothing!r} needs one, for example --sigma 0.25")
    return Plan(
        smoothing=smoothing,
        sigma=sigma,
        sigmas=() if smoothing == "" else sigmas,
        radii=tuple(radii),
        n=config.n,
        percentile=config.percentile,
        seed=config.seed,
        batch_size=config.batch_size,
        compile=config.compile,
        device=config.device,
    )


def options_of(
    config: AttackConfig, radii: Sequence[float], sources: Mapping[str, Detector]
) -> AttackOptions:
    """Return threat, method and budget as the options give them."""
    return AttackOptions(
        norm=config.norm,
        radii=radii,
        method=config.method,
        objective=config.objective,
        steps=config.steps,
        restarts=config.restarts,
        eot=config.eot,
        seed=config.seed,
        sources={name: source.score for name, source in sources.items()},
        fresh_draws=config.fresh_draws,
    )


def load_transfer_sources(config: AttackConfig, split: DataSplit) -> dict[str, Detector]:
    """Return the detectors of `--sources` by name, fitted on the train images where they are but named."""
    words = [word.strip() for word in (config.sources or "").split(",") if word.strip()]
    needed = config.method in ATTACKS and "sources" in ATTACKS[config.method].material
    if bool(words) != needed:
        raise InputError(
            f"--sources: {'got ' + config.sources if config.sources else 'none given'}, --method {config.method}; the "
            "method transfer needs some, such as pixel_nn,pca, and no other method takes any"
        )
    sources: dict[str, Detector] = {}
    for word in words:
        source = load_detector(word)
        source = source.fit(split.train.images) if source.image_shape is None else source
        if source.image_shape != tuple(split.test.images.shape[1:]):
            raise InputError(
                f"--sources: {word} takes images {source.image_shape}, {split.name} has others; train it on these"
            )
        sources[Path(word).name] = source.to(config.device)
    return sources


def show(config: AttackConfig, rows: list[Row], folder: Path) -> None:
    """Print the table, or one JSON object; of the attacked sides all, or the one asked for."""
    if config.side is not None:
        rows = [row for row in rows if row["condition"] != "attack" or row["side"] == config.side]
    print(json.dumps({"folder": str(folder), "auroc": rows}) if config.json else format_table(rows))
    certified = any(row["condition"] == "certified" for row in rows)
    what = f"{folder}" if certified else f"{folder} CERTIFY_RUN"
    console.say(f"\nrun folder: {folder}   (diffad compare {what} draws both)")


def refuse_another_score(folder: Path, config: AttackConfig, plan: Plan, purifier: str | None) -> None:
    """Refuse a folder that holds attacks on another smoothed score: the rows of both would stand in one table.

    Budgets and methods may differ, and so may n and seed of a certificate in the folder: its clean scores are its own.
    """
    fresh = config.fresh_draws is not None
    if not (folder / MANIFEST).is_file() or (plan.smoothing in ("", "none") and not fresh):
        return  # without noise neither n nor seed decides anything
    asked = {"n": plan.n, "percentile": plan.percentile, "seed": plan.seed, "purifier_fingerprint": purifier}
    way = (plan.smoothing, plan.sigma, list(plan.sigmas), config.fresh_draws)
    for entry in read_run(folder).manifest["commands"]:
        before = entry["config"]
        known = [before.get(name) for name in ("smoothing", "sigma", "sigmas", "fresh_draws")]
        if (known[0], known[1], known[2] or [], known[3]) != way:
            continue
        names = ["percentile", "purifier_fingerprint"]
        if entry["command"] != "certify":
            names = ["seed"] if fresh else ["n", "seed", *names]  # the mean of fresh draws has no percentile
        changed = [name for name in names if name in before and before[name] != asked[name]]
        if changed:
            words = "; ".join(f"{name} was {before[name]!r} and is now {asked[name]!r}" for name in changed)
            raise InputError(f"{folder}: holds results of another score ({words}); use another --output_dir")


def without_known_clean(folder: Path, conditions: list[Condition]) -> list[Condition]:
    """Leave out clean rows that the folder holds from a certificate of this score: those rest on its own draws.

    An attack carries the clean scores of its evaluation in its own rows, so nothing is lost. Clean rows of an earlier
    attack are replaced.
    """
    if not (folder / MANIFEST).is_file():
        return conditions
    held = read_run(folder).conditions
    proved = {(one.subject.score, one.n) for one in held if one.condition == "certified"}
    known = {one.key for one in held if one.condition == "clean" and (one.subject.score, one.n) in proved}
    return [condition for condition in conditions if condition.key not in known]
