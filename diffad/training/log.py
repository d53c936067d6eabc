"""`log.jsonl`: one JSON object a line, appended while training, consistent after a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from certify.files import write_text


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Return the lines of a log; a last line cut short by a kill is left out."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines) - 1:
                raise
    return rows


class StepLog:
    """Appends rows to `path`, after dropping what a stopped run wrote beyond the step it resumes from."""

    def __init__(self, path: Path | str, *, resumed_at: int) -> None:
        self.path = Path(path)
        kept = [row for row in read_log(self.path) if row["step"] <= resumed_at]
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def write(self, row: dict[str, Any]) -> None:
        """Append one row, which has a `step`; on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
