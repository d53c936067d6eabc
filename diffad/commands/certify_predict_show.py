"""What `certify predict` prints: a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from certify.text import floor_text
from diffad.prediction import Deployed, Prediction, Rule
from diffad.tables import align

UNREADABLE = "unreadable"


def as_text(
    kind: str,
    predictions: Sequence[Prediction],
    failures: dict[str, str],
    loaded: Deployed,
    rule: Rule,
) -> str:
    """Return the results as `kind` says: a `table`, `csv`, or one `json` object."""
    if kind == "json":
        found = {
            "detector": loaded.detector.row_name,
            "smoothing": loaded.smoothed.smoothing,
            "sigma": loaded.smoothed.sigma,
            "threshold": loaded.smoothed.threshold_,
            "alpha": None if loaded.smoothed.base is None else rule.alpha,
            "images": [asdict(prediction) for prediction in predictions],
            "unreadable": failures,
        }
        return json.dumps(found)
    if kind == "csv":
        return csv_text(predictions, failures).rstrip("\n")
    return table_text(predictions, failures) + "\n\n" + statement(predictions, loaded, rule)


def csv_text(predictions: Sequence[Prediction], failures: dict[str, str]) -> str:
    """Return one line an image under a header, in order of name; an unreadable one has empty cells."""
    names = [field.name for field in fields(Prediction)]
    rows = [[*astuple(prediction), ""] for prediction in predictions]
    blank = [""] * (len(names) - 2)
    rows += [[name, UNREADABLE, *blank, reason] for name, reason in failures.items()]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*names, "error"])
    writer.writerows(["" if cell is None else cell for cell in row] for row in sorted(rows, key=_first))
    return buffer.getvalue()


def table_text(predictions: Sequence[Prediction], failures: dict[str, str]) -> str:
    """Return the table that people read, in order of name; radii are floored."""
    rows = [
        [
            prediction.image,
            prediction.decision,
            floor_text(prediction.radius, 3) if prediction.radius > 0.0 else "-",
            floor_text(prediction.linf, 4) if prediction.radius > 0.0 else "-",
            "-" if prediction.score is None else f"{prediction.score:.5g}",
            str(prediction.passes),
            f"{prediction.seconds:.2f}",
        ]
        for prediction in predictions
    ]
    rows += [[name, UNREADABLE, *["-"] * 5] for name in failures]
    header = ["image", "decision", "L2 radius", "Linf reading", "score", "passes", "seconds"]
    return align([header, *sorted(rows, key=_first)])


def statement(predictions: Sequence[Prediction], loaded: Deployed, rule: Rule) -> str:
    """Return what the table says and on what it rests."""
    counts = {kind: 0 for kind in ("normal", "anomalous", "abstain")}
    for prediction in predictions:
        counts[prediction.decision] += 1
    shape = loaded.detector.image_shape
    assert shape is not None
    lines = [
        ", ".join(f"{count} {kind}" for kind, count in counts.items())
        + f"; threshold {loaded.smoothed.threshold_:.6g}, {loaded.origin['text']}",
        f"radii are of attacks on the pixels at {shape[1]} x {shape[2]}, in [0, 1]; "
        "Linf reading: r / sqrt(d), the largest Linf ball inside the L2 ball",
    ]
    if loaded.smoothed.base is None:
        lines.append("certified without noise, by the Lipschitz constant of the score")
    else:
        lines.append(
            f"each decision and its radius is wrong with probability at most {rule.alpha:g} over the noise; "
            "a second run for another verdict spends that again"
        )
    invalid = sum(prediction.invalid for prediction in predictions)
    if invalid:
        lines.append(f"{invalid} draws were NaN and counted against their image")
    return "\n".join(lines)


def _first(row: Iterable[Any]) -> str:
    return str(next(iter(row)))
