"""Images that belong together: a list of known groups, or near-duplicates found by correlation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from certify.checks import InputError
from diffad.data.probe import near_duplicate_groups
from diffad.data.records import Record
from diffad.data.source import Pool

GROUPS_FILE = "groups.json"


def known_groups(root: Path, identifiers: Sequence[str]) -> dict[str, str]:
    """Read `groups.json` of a data folder: {"train/good/000.png": "tile 17", ...}; empty where there is none.

    Files that are not listed stand alone. Raises `InputError` for a file that is not one of `identifiers`.
    """
    path = root / GROUPS_FILE
    if not path.exists():
        return {}
    try:
        groups = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(groups, dict) or not all(isinstance(value, str) for value in groups.values()):
        raise InputError(f"{path}: need one object that maps file names to group names")
    known = set(identifiers)
    for name in groups:
        if name not in known:
            raise InputError(f"{path}: names {name!r}, which is no image of the train or test part")
    return groups


def with_near_duplicates(
    records: list[Record], pool: Pool, places: Sequence[int], threshold: float
) -> list[Record]:
    """Put near-duplicates into groups: connected images whose high-pass correlation exceeds `threshold`.

    They are compared as grey thumbnails of one fixed size where the pool has them, so that the cut does not
    depend on the resolution asked for. Images that have a known group keep it.
    """
    thumbnails = pool.thumbnails(places) or [record.image for record in records]
    result = list(records)
    for members in near_duplicate_groups(torch.stack(thumbnails), threshold):
        name = f"near {records[members[0]].identifier}"
        for i in members:
            if result[i].group is None:
                result[i] = replace(result[i], group=name)
    return result
