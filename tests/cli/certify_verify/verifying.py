"""What the tests of `certify verify` share: its checks by name, and how somebody forges a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from certify import console
from certify.cli import main
from certify.files import write_json
from certify.log import read_layout, read_records
from certify.store import ScoreStore
from diffad.results import read_run, summarize

Stored = dict[int, tuple[str, dict[int, Any]]]  # by image: its digest, and its scores by chunk

FAST = ["--limit", "3", "--n", "100", "--batch_size", "50", "--radii", "0.1", "--no_examples"]


def checks(argv: list[str], capsys, code: int = console.DONE) -> dict[str, dict]:
    """The checks by name."""
    assert main(["verify", *argv, "--json"]) == code
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def statuses(found: dict[str, dict]) -> dict[str, str]:
    return {name: check["status"] for name, check in found.items()}


def failed(found: dict[str, dict]) -> list[str]:
    return [name for name, status in statuses(found).items() if status == "failed"]


def rewrite_rows(run: Path, change) -> None:
    table = pq.read_table(run / "images.parquet")
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    change(columns)
    pq.write_table(pa.table(columns, schema=table.schema), run / "images.parquet")


def retell(run: Path) -> None:
    """Write the tables that changed rows give, as somebody would who forges with care."""
    write_json(run / "summary.json", summarize(read_run(run)))


def rewrite_draws(folder: Path, change: Callable[[Stored], Stored]) -> None:
    """Write the stored scores anew as somebody would who has the library: by image, its digest and its chunks."""
    old = ScoreStore(folder, json.loads((folder / "config.json").read_text())["config"])
    kept = change({index: (digest, old.chunks(index, digest)) for index, digest in old.digests().items()})
    for log in folder.glob("scores-*.bin"):
        log.unlink()
    new = ScoreStore(folder, old.config)
    for index, (digest, chunks) in kept.items():
        new.put(index, digest, chunks)


def forge(run: Path, place: int, row: int, value: float) -> None:
    """Change one stored score as somebody would who knows the format, checksum included."""
    import zlib

    (log,) = (run / "draws" / "diffusion").glob("scores-*.bin")
    stored = json.loads((run / "draws" / "diffusion" / "config.json").read_text())
    layout = read_layout(log, stored["hash"])
    assert layout is not None
    content = bytearray(log.read_bytes())
    kind = layout.record
    start = len(content) % kind.itemsize + row * kind.itemsize
    record = np.frombuffer(bytes(content[start : start + kind.itemsize]), kind).copy()
    record["scores"][0, place] = value
    record["crc"] = zlib.crc32(record.tobytes()[:-4])
    content[start : start + kind.itemsize] = record.tobytes()
    log.write_bytes(content)
    assert read_records(log, layout, 0)[1] == 0
