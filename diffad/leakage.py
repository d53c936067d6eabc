"""What a detector, or the network in front of it, has seen of what it is tested on.

Within one split no picture lies in two parts. Beyond it other things leak: images that a detector keeps, an outlier set
that was the open set of its training, a backbone that was trained on the classes of an outlier set. What is found is
said on stderr and kept in the probe of the data, so that it stands in the manifest beside the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from certify.checks import check_device
from certify.console import say
from diffad.data import DataSplit
from diffad.data.protocols import REST, outlier_set
from diffad.detector import Detector
from diffad.manifest import without_paths

NAMED = 5  # images that a warning names
CUT_BY_SEED = ("digits",)  # sets without a published test part
TEXTURES = "textures"


def same_source(one: str, other: str) -> bool:
    """Return whether two specs name the same images, however a path is written; not where a copy lies elsewhere."""
    return _plain(one) == _plain(other)


def seen_sources(specs: Sequence[str], outliers: Sequence[str]) -> list[str]:
    """Return those of the specs that are outlier sets; `textures` there stands for every family."""
    families = TEXTURES in outliers
    return [
        spec
        for spec in specs
        if any(same_source(spec, other) for other in outliers) or (families and _kind(spec) == TEXTURES)
    ]


def with_kept_images(detector: Detector, split: DataSplit, device: str = "cpu") -> DataSplit:
    """Return the split, with the number of test images that the detector keeps among its normals in its probe.

    Asked where data are named beside a fitted detector: on the split of its own training no picture lies in two parts.
    """
    check_device(device)
    kept = detector.to(device).in_bank(split.test.images)
    detector.to("cpu")
    if not kept:
        return split
    names = [split.test.identifiers[place] for place in kept]
    first = f"{', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"
    say(
        f"warning: {len(kept)} of {len(split.test)} test images are among the normals that {detector.name} keeps "
        f"({first}): their scores are memory; test on other images"
    )
    return _with(split, {"test_images_in_bank": len(kept), "in_bank_first": first})


def with_seen_sets(detector: Detector, split: DataSplit, training: Mapping[str, Any]) -> DataSplit:
    """Return the split, with what the detector's training or its backbone's knew of the outlier sets in its probe.

    What is not recorded (the data of a published network) is not found. A manifest keeps the last name of a path alone,
    so that another folder of the same name is taken for the same.

    Args:
        training: options of the detector's training, from its manifest; empty where there is none.
    """
    found = [*_open_sets(split, training), *_of_backbone(detector, split)]
    for sentence in found:
        say(f"warning: {detector.name}: {sentence}; the test does not show what it makes of the unknown")
    return _with(split, {"seen_in_training": "; ".join(found)}) if found else split


def _open_sets(split: DataSplit, training: Mapping[str, Any]) -> Iterator[str]:
    tested = [*map(str, without_paths(split.options.get("outliers", ()))), *split.options.get("outliers", ())]
    for name, what in (("open_data", "trained against"), ("validation_open_data", "chosen on")):
        for spec in seen_sources(training.get(name) or (), tested):
            yield f"was {what} {spec}, which is tested on"


def _of_backbone(detector: Detector, split: DataSplit) -> Iterator[str]:
    backbone = getattr(detector, "backbone", None) or getattr(
        getattr(detector, "behind", None), "backbone", None
    )
    facts: Mapping[str, Any] = getattr(backbone, "facts", {})
    data, training = facts.get("data"), facts.get("training")
    owners = [(outlier_set(defect), defect.rpartition("/")[2]) for defect in split.test.defects]
    if data in {owner for owner, _ in owners if owner}:
        yield f"its backbone was trained on {data}, which is tested on as an outlier set"
    normal = split.name.partition("-vs-")[0]
    if data != normal and not normal.startswith(f"{data}:"):
        return
    known = {name for owner, name in owners if owner == REST} & set(facts.get("classes") or ())
    if known:
        yield f"its backbone was trained on the classes {', '.join(sorted(known))}, which are tested on as unknown"
    seed = training.get("seed") if isinstance(training, Mapping) else None
    if data in CUT_BY_SEED and seed is not None and seed != split.options.get("seed"):
        yield (
            f"its backbone was trained on {data} cut by seed {seed}, the test is cut by seed "
            f"{split.options.get('seed')}, so that it has seen test images"
        )


def _with(split: DataSplit, found: Mapping[str, Any]) -> DataSplit:
    return replace(split, probe={**split.probe, **found})


def _kind(spec: str) -> str:
    return spec.partition(":")[0]


def _plain(spec: str) -> tuple[str, str]:
    kind, _, argument = spec.partition(":")
    if kind in ("folder", "mvtec"):
        argument = str(Path(argument).expanduser().resolve())
    return kind, argument
