"""`certify --one_draw K`: the certificate of the detector that scores each image once, from K passes an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from certify import console
from certify.checks import InputError
from certify.files import write_json
from certify.shards import Shard
from diffad.commands.certify_options import FIXED, CertifyConfig, refuse_changes
from diffad.data import DataSplit
from diffad.detector import Detector
from diffad.evaluation import fit_baselines
from diffad.manifest import build_manifest, describe_data
from diffad.metric_rows import Row
from diffad.one_draw import format_one_draw, one_draw_rows
from diffad.plan import Plan, baseline_plan, lipschitz_term
from diffad.results import MANIFEST, ROWS
from diffad.sources import parse_radii
from diffad.subject import Subject, folder_name

TABLE = "one_draw.json"


def check_one_draw(config: CertifyConfig) -> None:
    """Refuse what does not go with one draw an image, before a detector is loaded."""
    if config.one_draw is None:
        return
    if config.one_draw < 1:
        raise InputError(f"--one_draw: got {config.one_draw}, need at least 1 draw an image")
    if config.sigma is not None and "," in config.sigma:
        raise InputError("--one_draw: scores an image at one noise level; give one --sigma")
    wrong = [
        *(["--smoothing none"] if config.smoothing == "none" else []),
        *(["--adaptive"] if config.adaptive else []),
        *([f"--confidence {config.confidence}"] if config.confidence != "union" else []),
        *([f"--threshold {config.threshold}"] if config.threshold != "quantile" else []),
        *(["--dry_run"] if config.dry_run else []),
    ]
    if wrong:
        raise InputError(f"--one_draw: {wrong[0]} belongs to the certificate of the percentile; leave it out")


def certify_one_draw(
    config: CertifyConfig,
    plan: Plan,
    detector: Detector,
    split: DataSplit,
    *,
    purifier: Any,
    shard: Shard | None,
    started: datetime,
    argv: Sequence[str],
) -> Path:
    """Certify as `config` says, write one_draw.json and manifest.json, print the tables; return the folder."""
    assert config.one_draw is not None
    if plan.smoothing == "none":
        raise InputError("--one_draw: the way 'none' draws no noise; name another by --smoothing")
    plan = replace(plan, n=config.one_draw)
    folder = config.output_dir or Path("runs") / "-".join(
        [
            *("one_draw", folder_name(detector.row_name), split.name.replace(":", "-").replace("/", "-")),
            *(plan.smoothing, plan.noise, f"{plan.n}", f"seed={plan.seed}"),
            *([] if config.limit is None else [str(config.limit)]),
        ]
    )
    refuse_other_table(folder, config, detector)
    console.say(
        f"certifying one draw an image of {detector.name} on {split.name}, {len(split.test)} test images, way "
        f"{plan.smoothing}, sigma {plan.noise}, K = {plan.n}"
    )
    chosen = [(detector, plan, purifier)]
    if config.baselines and config.closed_form and detector.name != "closed_form":
        (baseline,) = fit_baselines(split, plan.radii, only={"closed_form"})
        chosen.append((baseline, baseline_plan(baseline, plan), None))
    tables = [
        one_draw_rows(
            one,
            split,
            own,
            store_folder=folder / "draws" / folder_name(one.row_name),
            purifier=other,
            shard=shard,
        )
        for one, own, other in chosen
    ]
    if shard is not None and shard.rank > 0:
        return folder
    manifest = build_manifest(
        "certify one_draw",
        {
            **asdict(config),
            **{"smoothing": plan.smoothing, "sigma": plan.sigma, "arguments": detector.config()},
            "lipschitz": {one.row_name: lipschitz_term(one, own.smoothing) for one, own, _ in chosen},
        },
        data=describe_data(split),
        detectors={one.row_name: one.fingerprint() for one, _, _ in chosen},
        seeds={"certify": plan.seed},
        started=started,
        device=plan.device,
        world_size=1 if shard is None else shard.world,
        argv=["certify", *argv],
    )
    write_json(folder / TABLE, {"one_draw": [row for rows in tables for row in rows]})
    write_json(folder / MANIFEST, manifest)
    show_one_draw(tables, plan, folder, as_json=config.json)
    return folder


# What the table of one folder was made with; radii may be added where each is a statement of its own.
KEPT = ("one_draw", *(name for name in FIXED if name != "n"))


def refuse_other_table(folder: Path, config: CertifyConfig, detector: Detector) -> None:
    """Refuse a folder that holds a run of the percentile, or a table that this one would replace by another.

    A K, a level or a quantile that is changed once the first table was seen is peeking (docs/certificates.md), and
    what was seen would be gone.
    """
    if (folder / ROWS).exists():
        raise InputError(
            f"--output_dir: {folder} holds a run of another detector, the percentile's; use another"
        )
    if not (folder / MANIFEST).is_file():
        return
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        before, detectors = manifest["commands"][-1]["config"], manifest["detectors"]
        known = set(parse_radii(before["radii"]))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            f"{folder / MANIFEST}: is not that of a one-draw certificate; use another --output_dir"
        ) from error
    if detector.row_name not in detectors:
        raise InputError(f"{folder}: holds the table of {', '.join(detectors)}; use another --output_dir")
    fixed_radii = config.joint or not known <= set(parse_radii(config.radii))
    refuse_changes(folder, before, asdict(config), [*KEPT, *(["radii"] if fixed_radii else [])])


def show_one_draw(tables: Sequence[list[Row]], plan: Plan, folder: Path, *, as_json: bool) -> None:
    """Print the tables, or one JSON object."""
    if as_json:
        print(json.dumps({"folder": str(folder), "one_draw": [row for rows in tables for row in rows]}))
        return
    for rows in tables:
        print(f"{_title(rows[0])}\n{format_one_draw(rows)}\n")
    together = "all values of one table together" if plan.joint else "each AUROC and each pair of rates"
    print(
        "The randomised detector scores an image by one fresh draw. Certified: what AUROC, TPR and FPR are on average\n"
        f"over its noise, on these images, from {plan.n} draws an image; alpha = {plan.alpha:g} for {together}.\n"
        "TPR: anomalies attacked (out, both); FPR: normals attacked (in, both). It is another detector than the\n"
        "percentile, whose tables are not comparable."
    )
    console.say(f"\nrun folder: {folder}")


def _title(row: Row) -> str:
    subject = Subject(**{name: row[name] for name in Subject._fields})
    size = f"{subject.resolution} x {subject.resolution}"
    images = f"{row['normals']} normal + {row['anomalies']} anomalous"
    return f"{subject.dataset}  {subject.label}  {size}  {images}  one draw an image, threshold {row['threshold']:.4g}"
