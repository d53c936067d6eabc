"""What of a plan is recorded in `results/PRESET/`: a content hash for each chain, so that nothing is run twice.

`recorded.json` holds for every complete chain the SHA-256 of its commands and of those of the chains that it needs.
Folders of this machine do not count, nor do versions: those stand in the manifests. Results add up: a call for a part
of a preset leaves the rows of all other runs as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from common.steps import Chain, Step
from common.tables import Row

from certify.files import write_json
from diffad.manifest import without_paths

FILE, SUMMARY, TABLE = "recorded.json", "summary.json", "table.md"


def digests(chains: Sequence[Chain]) -> dict[str, str]:
    """Return the content hash of each chain; those that others need come first."""
    found: dict[str, str] = {}
    for chain in chains:
        steps = [[step.name, step.command, *content(step)] for step in chain.steps]
        text = json.dumps([steps, sorted(found[name] for name in chain.needs)])
        found[chain.name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def content(step: Step) -> list[str]:
    """Return the arguments of a step without folders of this machine; a configuration file counts by its content."""
    runs = f"{step.done.parent}/"
    words: list[str] = []
    for word in step.argv:
        file = Path(word)
        if file.suffix == ".yaml" and file.is_file():
            words.append(json.dumps(yaml.safe_load(file.read_text(encoding="utf-8")), sort_keys=True))
        else:
            words.append(str(without_paths(word.replace(runs, ""))))
    return words


def recorded(output: Path, chains: Sequence[Chain]) -> set[str]:
    """Return the names of the chains that a folder of results holds with the same content."""
    old = _read(output)
    return {name for name, digest in digests(chains).items() if old.get(name) == digest}


def holder(output: Path, chains: Sequence[Chain]) -> Path | None:
    """Return the folder of results, this one or another preset's, that holds every chain; None: no one does."""
    others = sorted(file.parent for file in output.parent.glob(f"*/{FILE}") if file.parent != output)
    return next((one for one in (output, *others) if len(recorded(one, chains)) == len(chains)), None)


def missing(chains: Sequence[Chain], known: Collection[str]) -> list[Chain]:
    """Return the chains that are not recorded, and those that they need: networks are not recorded."""
    wanted = {chain.name for chain in chains} - set(known)
    for chain in reversed(chains):
        if chain.name in wanted:
            wanted.update(chain.needs)
    return [chain for chain in chains if chain.name in wanted]


def record(output: Path, chains: Sequence[Chain], known: Collection[str]) -> None:
    """Write the hashes of what is complete or was recorded before, beside those of other chains."""
    found = digests(chains)
    kept = {chain.name: found[chain.name] for chain in chains if chain.complete or chain.name in known}
    others = {name: digest for name, digest in _read(output).items() if name not in found}
    write_json(output / FILE, dict(sorted({**others, **kept}.items())))


def with_recorded(rows: Sequence[Row], output: Path) -> list[Row]:
    """Return the rows that the results hold of other runs and measurements than these, then these."""

    def source(row: Row) -> tuple[Any, Any]:
        return row.get("run"), row.get("measure")

    there = {source(row) for row in rows}
    return [*(row for row in summary(output, "rows", []) if source(row) not in there), *rows]


def summary(output: Path, name: str, default: Any) -> Any:
    """Return a part of the recorded summary."""
    file = output / SUMMARY
    return json.loads(file.read_text(encoding="utf-8")).get(name, default) if file.is_file() else default


def _read(output: Path) -> dict[str, str]:
    file = output / FILE
    found: dict[str, str] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
