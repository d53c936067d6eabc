"""A run folder: rows of scores and a manifest; everything else is derived from them.

    run = write_run("runs/digits8", manifest, conditions)   # creates the folder, or adds to it
    run = read_run("runs/digits8")
    print(format_table(auroc_table(run)))

`images.parquet` and `manifest.json` are the record. `summary.json` repeats the tables for readers without
Python and is rewritten whenever rows change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from certify.checks import InputError
from certify.files import write_atomic, write_json
from diffad.conditions import KEY_COLUMNS, Condition
from diffad.manifest import FORMAT, merge_manifests, refuse_another_run
from diffad.metric_rows import auroc_table, defect_table
from diffad.rows import from_table, to_table
from diffad.runs import Run

ROWS, MANIFEST, SUMMARY = "images.parquet", "manifest.json", "summary.json"


def write_run(
    folder: Path | str, manifest: Mapping[str, Any], conditions: Iterable[Condition], *, replace: bool = False
) -> Run:
    """Write conditions to a run folder, and return the folder's whole content.

    A folder that holds a run keeps its other conditions; one that it holds already is replaced whole, so that
    rows of two runs never mix. The data must be the same. `replace=True` forgets what was there.
    """
    folder = Path(folder)
    fresh = list(conditions)
    _check_fresh(fresh, manifest)
    old = read_run(folder) if not replace and (folder / MANIFEST).exists() else None
    if old is not None:
        manifest = merge_manifests(old.manifest, manifest)
        written = {condition.key for condition in fresh}
        fresh = [*(c for c in old.conditions if c.key not in written), *fresh]
    table = to_table(fresh)
    write_atomic(folder / ROWS, lambda path: pq.write_table(table, path, compression="zstd"))
    write_json(folder / MANIFEST, manifest)
    run = Run(folder, dict(manifest), tuple(from_table(table)))
    write_json(folder / SUMMARY, summarize(run))
    return run


def refuse_foreign(folder: Path, data: Mapping[str, Any], detectors: Mapping[str, str]) -> None:
    """Refuse, before anything is computed, what `write_run` would refuse to put into the folder.

    Args:
        folder: run folder; one without a manifest takes anything.
        data: from `diffad.manifest.describe_data`, the images.
        detectors: fingerprint of each detector by name.
    """
    if (folder / MANIFEST).is_file():
        refuse_another_run(read_run(folder).manifest, data, detectors)


def _check_fresh(conditions: list[Condition], manifest: Mapping[str, Any]) -> None:
    if not conditions:
        raise InputError("write_run: got no condition, need at least one")
    if len({condition.key for condition in conditions}) != len(conditions):
        raise InputError(f"write_run: got two conditions that agree in {', '.join(KEY_COLUMNS)}")
    data = manifest["data"]
    for condition in conditions:
        given = (condition.subject.dataset, condition.subject.resolution)
        if given != (data["name"], data["resolution"]):
            raise InputError(
                f"write_run: rows of {given[0]} at {given[1]} pixels under a manifest of {data['name']} "
                f"at {data['resolution']}"
            )


# What other folders of results hold, which have no rows.
_OTHERS = {
    "one_draw.json": "holds a one-draw certificate, whose table is in one_draw.json; there are no rows to compare",
    "compare.html": "holds a comparison: open compare.html; reports are made of the run folders that it compares",
}


def read_run(folder: Path | str) -> Run:
    """Read a run folder; names what is missing or broken."""
    folder = Path(folder)
    for other, words in _OTHERS.items():
        if (folder / other).is_file() and not (folder / ROWS).is_file():
            raise InputError(f"{folder}: {words}")
    for name in (MANIFEST, ROWS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: no {name} here, so this is no run folder; "
                "certify and diffad attack write one (--output_dir)"
            )
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        # in one piece: by its path the file is opened twice, and another process may replace it in between
        table = pq.read_table(pa.BufferReader((folder / ROWS).read_bytes()))
    except (ValueError, OSError) as error:
        raise InputError(f"{folder}: cannot be read: {str(error).splitlines()[0]}") from error
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{folder}: manifest format {manifest.get('format')}, this version of diffad reads {FORMAT}"
        )
    return Run(folder, manifest, tuple(from_table(table)))


def summarize(run: Run) -> dict[str, Any]:
    """What `summary.json` holds: the data set and the table, derived from the rows."""
    return {"data": run.manifest["data"], "auroc": auroc_table(run), "defects": defect_table(run)}
