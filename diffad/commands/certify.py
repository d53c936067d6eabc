"""`certify`: certified AUROC of a detector; `certify.cli` starts it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from certify import console
from certify.bounds import all_infinite, max_radius
from certify.shards import Shard, current_shard
from certify.text import floor_text
from diffad.commands.certify_one_draw import certify_one_draw, check_one_draw
from diffad.commands.certify_options import FIXED, CertifyConfig, complete, plan_of, refuse_changes
from diffad.commands.certify_plan import show_plan
from diffad.commands.certify_show import linf_readings, radius_quantiles, show
from diffad.conclusion import conclusion
from diffad.conditions import Condition
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.evaluation import certify_split, fit_baselines
from diffad.examples import choose_examples, make_examples, write_examples
from diffad.manifest import build_manifest, describe_data, now
from diffad.metric_rows import auroc_table
from diffad.plan import Plan, baseline_plan, default_smoothing, lipschitz_term, load_purifier, score_name_of
from diffad.precision import exact_float32
from diffad.results import MANIFEST, read_run, refuse_foreign, write_run
from diffad.sources import at_sigma, load_sources
from diffad.subject import beside_name, folder_name
from diffad.world_size import check_world_size


@exact_float32()
def certify(config: CertifyConfig, argv: list[str]) -> Path | None:
    """Certify as `config` says, write the run folder, print the table; return the folder, None of a dry run."""
    started = now()
    plan = plan_of(config)  # refuses what is out of range before a detector is loaded or trained
    check_one_draw(config)
    shard = current_shard()
    check_world_size(1 if shard is None else shard.world)
    detector, split = load_sources(config, may_train=not config.dry_run and shard is None)
    plan = complete(plan, detector)
    detector = at_sigma(detector, plan.smoothing, plan.sigma, config.inner_sigma)
    purifier = load_purifier(config.purifier)
    if config.one_draw is not None:
        return certify_one_draw(
            *(config, plan, detector, split), purifier=purifier, shard=shard, started=started, argv=argv
        )
    warn_of_infinite(plan, len(split.test))
    if config.dry_run:
        show_plan(
            detector,
            split,
            plan,
            purifier=purifier,
            baselines=config.baselines and config.closed_form,  # the other rows are not drawn under noise
            json_wanted=config.json,
        )
        return None
    folder = config.output_dir or default_folder(config, detector, split, plan)
    refuse_other_options(folder, config, plan)
    described, fingerprints = describe_data(split), {detector.row_name: detector.fingerprint()}
    store_folder = folder / "draws" / folder_name(detector.row_name)
    if not store_folder.exists():  # else the draws refuse it, and name the option that differs
        refuse_foreign(folder, described, fingerprints)
    console.say(
        f"certifying {detector.name} on {split.name}, {len(split.test)} test images at "
        f"{split.resolution} x {split.resolution}, way {plan.smoothing}"
        + (f", sigma {plan.noise}, n = {plan.n}" if plan.noise else "")
    )
    conditions, sizes = certify_split(
        detector,
        split,
        plan,
        store_folder=store_folder,
        purifier=purifier,
        shard=shard,
    )
    clean = conditions[0]
    if config.baselines:
        skip = set() if config.closed_form else {"closed_form"}
        if default_smoothing(detector) == plan.smoothing:
            skip.add(detector.name)  # its network-free row would be the row itself
        rows, prints = baseline_rows(split, plan, folder, main=detector.name, skip=skip, shard=shard)
        conditions, fingerprints = conditions + rows, {**prints, **fingerprints}
    if shard is not None and shard.rank > 0:
        return folder  # every process has all scores; the first one writes and prints
    manifest = build_manifest(
        "certify",
        {
            **asdict(config),
            **{"smoothing": plan.smoothing, "sigma": plan.sigma, "sigmas": plan.sigmas},
            "threshold_radius": plan.threshold_radius,
            "purifier_fingerprint": None if purifier is None else purifier.fingerprint(),
            "arguments": detector.config(),
            "lipschitz": {detector.row_name: lipschitz_term(detector, plan.smoothing)},
        },
        data=described,
        detectors=fingerprints,
        seeds={"certify": plan.seed},
        started=started,
        device=plan.device,
        world_size=1 if shard is None else shard.world,
        argv=["certify", *argv],
    )
    run = write_run(folder, manifest, conditions)
    if config.examples:
        chosen = choose_examples(clean)
        examples = make_examples(
            detector, clean.subject, split.test, chosen, seed=plan.seed, device=plan.device
        )
        write_examples(folder, examples)
    table = auroc_table(run)
    quantiles, linf = radius_quantiles(sizes, split), linf_readings(plan, split)
    level = None if plan.smoothing == "none" else plan.alpha_per_image
    show(config.json, table, quantiles, linf, folder, detector.row_name, level)
    if text := conclusion(table, detector.row_name):
        console.say(text)
    return folder


# What runs of versions that did not record these options were certified with.
OLDER: dict[str, Any] = {"sigmas": [], "threshold": "quantile", "threshold_radius": None}


def refuse_other_options(folder: Path, config: CertifyConfig, plan: Plan) -> None:
    """Refuse a folder that holds certificates under other options: their rows would stand in one table.

    An n or a level that is changed once the first table was seen is peeking besides (docs/certificates.md).
    """
    if not (folder / MANIFEST).is_file():
        return
    now_asked = {**asdict(config), "sigmas": list(plan.sigmas), "threshold_radius": plan.threshold_radius}
    for entry in read_run(folder).manifest["commands"]:
        before = entry["config"] if entry["command"] == "certify" else {}
        names = [*FIXED, "sigmas", *(["radii"] if config.joint else [])]
        before = {**OLDER, **before} if before else {}
        refuse_changes(folder, before, now_asked, names)


def warn_of_infinite(plan: Plan, images: int) -> None:
    """Say before any forward pass which radii the noise and n can't certify at all."""
    if plan.smoothing == "none" or plan.sigma is None:
        return
    level, sigma = plan.weakest(images)
    lost = [radius for radius in plan.radii if all_infinite(radius, sigma, plan.n, level, plan.percentile)]
    if not lost:
        return
    most = f"the largest finite one is {floor_text(max_radius(plan.n, sigma, level), 3)}: "
    console.say(
        f"warning: at sigma {plan.noise}, n = {plan.n}, alpha {plan.alpha:g} every bound is infinite at "
        f"L2 radius {', '.join(f'{radius:g}' for radius in lost)}; "
        f"{most if plan.percentile == 0.5 else ''}raise --sigma or --n"
    )


def baseline_rows(
    split: DataSplit,
    plan: Plan,
    folder: Path,
    *,
    main: str,
    skip: Collection[str],
    shard: Shard | None = None,
) -> tuple[list[Condition], dict[str, str]]:
    """Return the conditions of the network-free detectors, and their fingerprints.

    One that bears the name of the `main` detector, which is certified another way, is entered by name and way.
    """
    conditions: list[Condition] = []
    fingerprints: dict[str, str] = {}
    for baseline in fit_baselines(split, plan.radii, skip=skip):
        own = baseline_plan(baseline, plan)
        name = beside_name(baseline.name, own.smoothing) if baseline.name == main else baseline.name
        rows, _ = certify_split(baseline, split, own, store_folder=folder / "draws" / name, shard=shard)
        conditions += rows
        fingerprints[name] = baseline.fingerprint()
    return conditions, fingerprints


def default_folder(config: CertifyConfig, detector: Detector, split: DataSplit, plan: Plan) -> Path:
    """Return runs/NAME, the same for the same options, so that repeating a command resumes it."""
    score = score_name_of(detector, plan.smoothing)
    words = [
        *(
            "certify",
            folder_name(detector.row_name),
            split.name.replace(":", "-").replace("/", "-"),
            str(split.resolution),
        ),
        *([score] if score else []),
        plan.smoothing,
        *([plan.noise.replace(" ", "")] if plan.noise else []),
        *([] if config.limit is None else [str(config.limit)]),
        *(
            f"{name}={getattr(config, name)}"
            for name in FIXED
            if getattr(config, name) != getattr(CertifyConfig, name)
        ),
    ]
    return Path("runs") / "-".join(words)
