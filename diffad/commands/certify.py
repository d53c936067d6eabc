"""`certify`: certified AUROC of a detector; `certify.cli` starts it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from certify import console
from certify.bounds import all_infinite, max_radius
from certify.checks import InputError
from certify.shards import Shard, current_shard
from certify.text import floor_text
from diffad.commands.certify_plan import show_plan
from diffad.commands.certify_show import linf_readings, radius_quantiles, show
from diffad.conditions import Condition
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.evaluation import certify_split, fit_baselines
from diffad.examples import choose_examples, make_examples, write_examples
from diffad.manifest import build_manifest, describe_data, now
from diffad.metric_rows import auroc_table
from diffad.plan import (
    Plan,
    baseline_plan,
    default_smoothing,
    lipschitz_term,
    load_purifier,
    score_name_of,
)
from diffad.results import MANIFEST, read_run, write_run
from diffad.sources import SmoothedOptions, at_sigma, load_sources, parse_radii
from diffad.training.launch import check_world_size

# What every certificate of one folder has in common; radii may be added, each is a statement of its own.
FIXED = (
    *(
        "n",
        "percentile",
        "quantile",
        "alpha",
        "alpha_per_image",
        "joint",
        "confidence",
        "adaptive",
        "tolerance",
    ),
    *("grid", "seed"),
)


@dataclass(frozen=True, kw_only=True)
class CertifyConfig(SmoothedOptions):
    """Certify a detector: bounds that no attack of a given L2 size can leave, and the AUROC they prove."""

    smoothing: Literal["input", "denoise", "reference", "sure", "none"] | None = None
    """The way; None: `none` for a Lipschitz score, `reference` for a diffusion detector, else `input`."""
    radii: str = "0,0.05,0.1,0.2,0.25,0.5"
    """L2 radii, comma separated, fractions allowed (8/255)."""
    alpha: float = 0.001
    """Error probability of one cell of the table (one radius, one side), all images together."""
    alpha_per_image: float = 0.001
    """Level of each image's bound in the columns of the literature's convention."""
    joint: bool = False
    """Let --alpha hold for all cells of the table together."""
    confidence: Literal["union", "failures", "population"] = "union"
    """What --alpha covers, chosen before looking: no bound of a cell wrong; or the number of wrong bounds bounded; or
    further images like these (docs/certificates.md)."""
    quantile: float = 0.9
    """The threshold is this quantile of the smoothed scores of held-out normals."""
    baselines: bool = True
    """Add the network-free rows: pixel_mean, pca, pixel_nn, patch_nn, closed_form."""
    closed_form: bool = True
    """Have the closed-form denoiser among them, which compares n draws an image with every training image."""
    adaptive: bool = False
    """Draw for each image only what the AUROC at --radii needs, up to --n; the level holds whenever drawing ends."""
    tolerance: float = 0.001
    """With --adaptive: share of a cell's pairs that may stay undecided."""
    grid: bool = False
    """Integer noise for 8-bit images: sound in floating point too against attackers who submit such images."""
    images_per_batch: int = 1
    """Images whose draws share a forward pass: more fill a large --batch_size at a small --n."""
    examples: bool = True
    """Keep a few images with anomaly maps for the report."""
    dry_run: bool = False
    """Print forward passes, expected time and what n can prove at each radius; draw and write nothing."""


def certify(config: CertifyConfig, argv: list[str]) -> Path | None:
    """Certify as `config` says, write the run folder, print the table; return the folder, None of a dry run."""
    started = now()
    plan = plan_of(config)  # refuses what is out of range before a detector is loaded or trained
    shard = current_shard()
    check_world_size(1 if shard is None else shard.world)
    detector, split = load_sources(config, may_train=not config.dry_run and shard is None)
    plan = complete(plan, detector)
    warn_of_infinite(plan, len(split.test))
    detector = at_sigma(detector, plan.smoothing, plan.sigma, config.inner_sigma)
    purifier = load_purifier(config.purifier)
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
    refuse_other_options(folder, config)
    console.say(
        f"certifying {detector.name} on {split.name}, {len(split.test)} test images at "
        f"{split.resolution} x {split.resolution}, way {plan.smoothing}"
        + (f", sigma {plan.sigma:g}, n = {plan.n}" if plan.smoothing != "none" else "")
    )
    conditions, sizes = certify_split(
        detector, split, plan, store_folder=folder / "draws" / detector.name, purifier=purifier, shard=shard
    )
    clean = conditions[0]
    fingerprints = {detector.name: detector.fingerprint()}
    if config.baselines:
        skip = {detector.name} if config.closed_form else {detector.name, "closed_form"}
        rows, prints = baseline_rows(split, plan, folder, skip=skip, shard=shard)
        conditions, fingerprints = conditions + rows, {**prints, **fingerprints}
    if shard is not None and shard.rank > 0:
        return folder  # every process has all scores; the first one writes and prints
    manifest = build_manifest(
        "certify",
        {
            **asdict(config),
            **{"smoothing": plan.smoothing, "sigma": plan.sigma, "arguments": detector.config()},
            "lipschitz": {detector.name: lipschitz_term(detector, plan.smoothing)},
        },
        data=describe_data(split),
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
    show(config.json, auroc_table(run), radius_quantiles(sizes, split), linf_readings(plan, split), folder)
    return folder


def refuse_other_options(folder: Path, config: CertifyConfig) -> None:
    """Refuse a folder that holds certificates under other options: their rows would stand in one table.

    An n or a level that is changed once the first table was seen is peeking besides (docs/certificates.md).
    """
    if not (folder / MANIFEST).is_file():
        return
    now_asked = asdict(config)
    for entry in read_run(folder).manifest["commands"]:
        before = entry["config"] if entry["command"] == "certify" else {}
        names = [*FIXED, *(["radii"] if config.joint else [])]
        changed = [name for name in names if name in before and before[name] != now_asked[name]]
        if changed:
            words = "; ".join(
                f"{name} was {before[name]!r} and is now {now_asked[name]!r}" for name in changed
            )
            raise InputError(
                f"{folder}: holds a certificate under other options ({words}); use another --output_dir, and decide "
                "n, levels and percentile before you look"
            )


def complete(plan: Plan, detector: Detector) -> Plan:
    """Return the plan with the way and the noise that the detector suggests where none was named."""
    smoothing = plan.smoothing or default_smoothing(detector)
    sigma = plan.sigma if plan.sigma is not None else getattr(detector, "sigma", None)
    if smoothing != "none" and sigma is None:
        raise InputError(f"--sigma: the way {smoothing!r} needs one, for example --sigma 0.25")
    return replace(plan, smoothing=smoothing, sigma=sigma)


def plan_of(config: CertifyConfig) -> Plan:
    """Return the plan as the options give it; `smoothing` is empty and `sigma` None where they leave it open."""
    return Plan(
        smoothing=config.smoothing or "",
        sigma=config.sigma,
        radii=parse_radii(config.radii),
        n=config.n,
        alpha=config.alpha,
        alpha_per_image=config.alpha_per_image,
        joint=config.joint,
        confidence=config.confidence,
        percentile=config.percentile,
        quantile=config.quantile,
        seed=config.seed,
        batch_size=config.batch_size,
        images_per_batch=config.images_per_batch,
        grid=config.grid,
        adaptive=config.adaptive,
        tolerance=config.tolerance,
        compile=config.compile,
        device=config.device,
    )


def warn_of_infinite(plan: Plan, images: int) -> None:
    """Say before any forward pass which radii the noise and n can't certify at all."""
    if plan.smoothing == "none" or plan.sigma is None:
        return
    level = plan.level(images)
    lost = [
        radius for radius in plan.radii if all_infinite(radius, plan.sigma, plan.n, level, plan.percentile)
    ]
    if not lost:
        return
    most = f"the largest finite one is {floor_text(max_radius(plan.n, plan.sigma, level), 3)}: "
    console.say(
        f"warning: at sigma {plan.sigma:g}, n = {plan.n}, alpha {plan.alpha:g} every bound is infinite at "
        f"L2 radius {', '.join(f'{radius:g}' for radius in lost)}; "
        f"{most if plan.percentile == 0.5 else ''}raise --sigma or --n"
    )


def baseline_rows(
    split: DataSplit, plan: Plan, folder: Path, *, skip: Collection[str], shard: Shard | None = None
) -> tuple[list[Condition], dict[str, str]]:
    """Return the conditions of the network-free detectors, and their fingerprints."""
    conditions: list[Condition] = []
    fingerprints: dict[str, str] = {}
    for baseline in fit_baselines(split, plan.radii, skip=skip):
        own = baseline_plan(baseline, plan)
        rows, _ = certify_split(
            baseline, split, own, store_folder=folder / "draws" / baseline.name, shard=shard
        )
        conditions += rows
        fingerprints[baseline.name] = baseline.fingerprint()
    return conditions, fingerprints


def default_folder(config: CertifyConfig, detector: Detector, split: DataSplit, plan: Plan) -> Path:
    """Return runs/NAME, the same for the same options, so that repeating a command resumes it."""
    score = score_name_of(detector, plan.smoothing)
    words = [
        *("certify", detector.name, split.name.replace(":", "-").replace("/", "-"), str(split.resolution)),
        *([score] if score else []),
        plan.smoothing,
        *([f"{plan.sigma:g}"] if plan.smoothing != "none" else []),
        *([] if config.limit is None else [str(config.limit)]),
        *(
            f"{name}={getattr(config, name)}"
            for name in FIXED
            if getattr(config, name) != getattr(CertifyConfig, name)
        ),
    ]
    return Path("runs") / "-".join(words)
