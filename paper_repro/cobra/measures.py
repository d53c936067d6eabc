"""The choice of the radius: the smallest at which the clean twins of another normal class have collapsed."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from common.tables import rows_of

from certify.console import run as run_command
from certify.files import write_json


def choose(runs: Sequence[Path], below: float) -> dict[str, object]:
    """Return the smallest radius whose attacked AUROC `both`, a mean over the runs, is below a value.

    Where none is, the largest is taken and `reached` is false, which tables say.
    """
    both: dict[float, list[float]] = {}
    for folder in runs:
        for row in rows_of(folder):
            if row["condition"] == "attack" and row["side"] == "both":
                both.setdefault(row["radius"], []).append(row["auroc"])
    collapsed = [radius for radius, values in sorted(both.items()) if statistics.fmean(values) < below]
    return {
        "eps": fraction(collapsed[0] if collapsed else max(both)),
        "reached": bool(collapsed),
        "below": below,
        "both": {fraction(radius): values for radius, values in sorted(both.items())},
        "runs": [folder.name for folder in runs],
    }


def fraction(radius: float) -> str:
    """Return a radius in units of 1/255, as options write it."""
    return f"{radius * 255:.4g}/255"


def main(argv: Sequence[str]) -> int:
    """Run one measurement; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    chosen = kinds.add_parser("choose")
    chosen.add_argument("--runs", type=Path, nargs="+", required=True)
    chosen.add_argument("--below", type=float, required=True)
    chosen.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    return run_command(lambda: write_json(options.output, choose(options.runs, options.below)))
