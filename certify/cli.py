"""The command `certify`: certified AUROC of a detector, for example `certify --sigma 0.25`."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from certify import console
from certify.bounds import all_infinite, linf_reading, max_radius
from certify.checks import InputError
from certify.text import floor_text
from certify.types import FloatArray
from diffad.commands.certify_plan import show_plan
from diffad.conditions import Condition
from diffad.config import parse_config
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.evaluation import (
    Plan,
    baseline_plan,
    certify_split,
    default_smoothing,
    fit_baselines,
    load_purifier,
    score_name_of,
)
from diffad.examples import choose_examples, make_examples, write_examples
from diffad.manifest import build_manifest, describe_data, now
from diffad.metric_rows import auroc_table
from diffad.results import write_run
from diffad.sources import SmoothedOptions, at_sigma, load_sources, parse_radii
from diffad.tables import format_table

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
# first word -> ("module:main", one line of help); each main takes the other words and returns an exit code
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": (
        "diffad.commands.certify_predict:main",
        "decide unlabelled images: normal, anomalous or abstain, with radius and price",
    ),
    "verify": (
        "diffad.commands.certify_verify:main",
        "check a run: re-derive its tables from the stored scores, redraw a share of the noise",
    ),
    "sweep": (
        "diffad.commands.certify_sweep:main",
        "choose sigma, way, score and percentile on validation data; write the winner as a config",
    ),
}


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
    examples: bool = True
    """Keep a few images with anomaly maps for the report."""
    dry_run: bool = False
    """Print forward passes, expected time and what n can prove at each radius; draw and write nothing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 failed, 2 usage, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in COMMANDS:
        return run_command(words)

    def command() -> None:
        config = parse_config(CertifyConfig, words, prog="certify", description=usage())
        certify(config, words)

    return console.run(command)


def run_command(words: list[str]) -> int:
    """Run one of COMMANDS, named by the first word; each runs in one process."""
    refused = console.run(one_process)
    if refused:
        return refused
    module, _, name = COMMANDS[words[0]][0].partition(":")
    command: Callable[[Sequence[str]], int] = getattr(import_module(module), name)
    return command(words[1:])


def usage() -> str:
    """Return what `certify --help` says first: its own line, and the commands behind it."""
    lines = [f"  certify {name:<8} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join([str(CertifyConfig.__doc__), "", "Further commands, each with its own --help:", *lines])


def certify(config: CertifyConfig, argv: list[str]) -> Path | None:
    """Certify as `config` says, write the run folder, print the table; return the folder, None of a dry run."""
    started = now()
    one_process()
    plan = plan_of(config)  # refuses what is out of range before a detector is loaded or trained
    detector, split = load_sources(config, may_train=not config.dry_run)
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
    console.say(
        f"certifying {detector.name} on {split.name}, {len(split.test)} test images at "
        f"{split.resolution} x {split.resolution}, way {plan.smoothing}"
        + (f", sigma {plan.sigma:g}, n = {plan.n}" if plan.smoothing != "none" else "")
    )
    conditions, sizes = certify_split(
        detector, split, plan, store_folder=folder / "draws" / detector.name, purifier=purifier
    )
    clean = conditions[0]
    fingerprints = {detector.name: detector.fingerprint()}
    if config.baselines:
        skip = {detector.name} if config.closed_form else {detector.name, "closed_form"}
        rows, prints = baseline_rows(split, plan, folder, skip=skip)
        conditions, fingerprints = conditions + rows, {**prints, **fingerprints}
    manifest = build_manifest(
        "certify",
        {**asdict(config), "smoothing": plan.smoothing, "sigma": plan.sigma, "arguments": detector.config()},
        data=describe_data(split),
        detectors=fingerprints,
        seeds={"certify": plan.seed},
        started=started,
        device=plan.device,
        argv=["certify", *argv],
    )
    run = write_run(folder, manifest, conditions)
    if config.examples:
        chosen = choose_examples(clean)
        examples = make_examples(
            detector, clean.subject, split.test, chosen, seed=plan.seed, device=plan.device
        )
        write_examples(folder, examples)
    show(config, auroc_table(run), radius_quantiles(sizes, split), linf_readings(plan, split), folder)
    return folder


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


def one_process() -> None:
    """Refuse to run beside copies of itself: draws are not yet shared between processes."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise InputError(f"certify: launched as {size} processes, runs in one; start it without a launcher")


def baseline_rows(
    split: DataSplit, plan: Plan, folder: Path, *, skip: Collection[str]
) -> tuple[list[Condition], dict[str, str]]:
    """Return the conditions of the network-free detectors, and their fingerprints."""
    conditions: list[Condition] = []
    fingerprints: dict[str, str] = {}
    for baseline in fit_baselines(split, plan.radii, skip=skip):
        rows, _ = certify_split(
            baseline, split, baseline_plan(baseline, plan), store_folder=folder / "draws" / baseline.name
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
    ]
    return Path("runs") / "-".join(words)


def radius_quantiles(sizes: FloatArray, split: DataSplit) -> dict[str, dict[str, float]]:
    """Quantiles of the certified radius at the threshold, normals and anomalies apart."""
    labels = split.test.labels.numpy()
    kinds = {"normal": sizes[labels == 0], "anomalous": sizes[labels == 1]}
    return {
        kind: {f"{q:g}": float(np.quantile(values, q, method="lower")) for q in QUANTILES}
        for kind, values in kinds.items()
    }


def linf_readings(plan: Plan, split: DataSplit) -> dict[str, float]:
    """Return for each L2 radius the Linf radius r / sqrt(d) that it holds, d the values of an image."""
    pixels = math.prod(split.test.images.shape[1:])
    return {f"{radius:g}": linf_reading(radius, pixels) for radius in plan.radii if radius > 0}


def show(
    config: CertifyConfig,
    rows: list[dict[str, Any]],
    quantiles: dict[str, dict[str, float]],
    linf: dict[str, float],
    folder: Path,
) -> None:
    """Print results to stdout: tables, or one JSON object."""
    if config.json:
        found = {"auroc": rows, "certified_radius": quantiles, "linf_reading": linf}
        print(json.dumps({"folder": str(folder), **found}))
        return
    print(format_table(rows))
    if linf:
        pairs = ", ".join(f"{radius} holds {floor_text(value, 5)}" for radius, value in linf.items())
        print(f"\nLinf reading (r / sqrt(d), the largest Linf ball inside the L2 ball): {pairs}")
    print("\ncertified L2 radius of the decision at the threshold (0: wrong or not certified)")
    print("quantile   " + "  ".join(f"{q:>6g}" for q in QUANTILES))
    for kind, values in quantiles.items():
        print(f"{kind:<10} " + "  ".join(f"{floor_text(value, 3):>6}" for value in values.values()))
    console.say(f"\nrun folder: {folder}   (diffad report {folder} makes the page)")


if __name__ == "__main__":
    sys.exit(main())
