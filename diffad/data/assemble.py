"""From a source and a protocol's choice to the four parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from certify.checks import InputError
from diffad.data.grouping import with_near_duplicates
from diffad.data.probe import probe
from diffad.data.protocols import Choice
from diffad.data.records import ImageSet, Record
from diffad.data.source import Source
from diffad.data.split import DataSplit, cut, drop_shared
from diffad.data.synthetic import with_synthetic_defects

MOST_HELD_OUT = 500  # calibration and validation normals; more would only cost forward passes
LEAST_HELD_OUT = 4


def assemble(
    name: str,
    source: Source,
    choice: Choice,
    *,
    seed: int,
    options: dict[str, Any],
    channels: int | None = None,
) -> DataSplit:
    """Read what `choice` names and cut it into train, calibration, validation and test.

    Test normals and anomalies keep the order of the choice, normals first. Calibration and validation take
    `source.held_out` of the train normals each (at most 500), whole groups at a time. Pictures that occur in
    two parts are dropped from the earlier one, and counted in `probe["dropped_copies"]`.
    """
    learn, normals, anomalies = _read(source, choice, channels)
    test = ImageSet.from_records([*normals, *anomalies])
    if source.group_above is not None:
        learn = with_near_duplicates(learn, source.train, choice.train, source.group_above)
    learn_set = ImageSet.from_records(learn)
    wanted = min(MOST_HELD_OUT, round(source.held_out * len(learn)))
    if wanted < LEAST_HELD_OUT:
        raise InputError(
            f"{name}: got {len(learn)} train normals; calibration and validation take a share of them: "
            f"need at least {round(LEAST_HELD_OUT / source.held_out)}"
        )
    rng = np.random.default_rng((seed, 3))
    train, calibration, held_out = (
        learn_set.take(places) for places in cut(learn_set.groups, (wanted, wanted), rng)
    )
    (train, calibration, held_out, test), copies, grouped = drop_shared([train, calibration, held_out, test])
    if min(len(calibration), len(held_out)) < max(2, wanted // 2):
        raise InputError(
            f"{name}: groups and copies leave {len(calibration)} calibration and {len(held_out)} validation "
            f"normals of {wanted} wanted; give more images, or smaller groups"
        )
    validation = with_synthetic_defects(held_out, source.style, seed=seed, native=source.native)
    facts = {**probe(train, test), "dropped_copies": copies, "dropped_for_group": grouped}
    facts["groups"] = len({group for group in train.groups if group is not None})
    _, depth, _, side = test.images.shape
    return DataSplit(name, train, calibration, validation, test, side, depth, facts, options)


def _read(
    source: Source, choice: Choice, channels: int | None
) -> tuple[list[Record], list[Record], list[Record]]:
    """Read train normals, test normals, anomalies; with free channels, one colour image makes all colour."""
    learn = source.train.records(choice.train, anomalous=False)
    normals = source.test.records(choice.normals, anomalous=False)
    anomalies = [
        record
        for pool, places, prefix in choice.anomalies
        for record in pool.records(places, anomalous=True, prefix=prefix)
    ]
    everything = [*learn, *normals, *anomalies]
    depth = channels or max(record.image.shape[0] for record in everything)
    return _deep(learn, depth), _deep(normals, depth), _deep(anomalies, depth)


def _deep(records: Sequence[Record], depth: int) -> list[Record]:
    return [
        record
        if record.image.shape[0] == depth
        else replace(record, image=record.image.expand(depth, -1, -1))
        for record in records
    ]
