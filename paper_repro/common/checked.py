"""What the sanity checks of the recorded attacks said, as the last lines of a paper's tables."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

TELLS_APART = ("detector", "smoothing", "score_name", "sigma", "n", "method", "norm", "eps")


def checked(output: Path, labels: Iterable[str], compared: Container[str] = ()) -> str:
    """Return Markdown lines: how many attacks passed all mandatory checks, which failed one, and which had none.

    Args:
        output: folder of results; `runs/LABEL/manifest.json` holds the attacks of a run, one a radius.
        labels: names of runs.
        compared: those of them whose attacks are what a comparison is about: weak ones belong there, none is counted.
    """
    found = [(label, record) for label in labels for record in attacks_of(output / "runs" / label)]
    records = [(label, record) for label, record in found if label not in compared]
    if not records:
        return ""
    sound = sum(record["failed_checks"] == [] for _, record in records)
    lines = [f"Attacks that passed all mandatory checks: {sound} of {len(records)}.", ""]
    unchecked = sum(record["failed_checks"] is None for _, record in records)
    lines += [f"- attacks without checks: {unchecked}"] if unchecked else []
    for label, record in found:
        failed = [check for check in record["checks"] if check["passed"] is False]
        names = [check["name"] + ("" if check["mandatory"] else " (not mandatory)") for check in failed]
        about = ", not counted, a comparison of attacks" if label in compared else ""
        lines += [f"- {label}, {record['eps']}{about}: check {', '.join(names)} FAILED"] if names else []
    return "\n".join(lines) + "\n"


def attacks_of(folder: Path) -> list[dict[str, Any]]:
    """Return the records of the attacks of a run folder, of repeated ones the last; none where it has no manifest."""
    file = folder / "manifest.json"
    if not file.is_file():
        return []
    manifest = json.loads(file.read_text(encoding="utf-8"))
    records = [record for command in manifest["commands"] for record in command.get("attacks", ())]
    found = {tuple(record.get(name) for name in TELLS_APART): record for record in records}
    return list(found.values())
