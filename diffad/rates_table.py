"""The rates at the calibrated threshold as `certify` prints them: TPR floored, FPR ceiled, for every side."""

from __future__ import annotations

from collections.abc import Sequence

from diffad.metric_rows import Row
from diffad.tables import MISSING, align, cell_text, find, interval_text, radius_text, subject_of

HEADER = ["detector", "threshold", "l2 radius", "TPR clean", "TPR", "95 %", "FPR clean", "FPR", "95 %"]


def format_rates(rows: Sequence[Row]) -> str:
    """Plain text: one line for each subject and L2 radius; empty where no certified row has a threshold.

    An attack on normal images alone (`in`) leaves the TPR where it is at radius 0, one on anomalies alone (`out`) the
    FPR, so one column of each serves all sides.
    """
    lines = [HEADER]
    certified = [row for row in rows if row["condition"] == "certified" and row["norm"] == "l2"]
    certified = [row for row in certified if row["alpha_kind"] != "per_image" and row["side"] == "both"]
    rules = []
    for subject in dict.fromkeys(subject_of(row) for row in certified if row["threshold"] is not None):
        own = [row for row in certified if subject_of(row) == subject]
        clean = find([row for row in rows if subject_of(row) == subject], condition="clean")
        rules.append(str(own[0].get("threshold_rule", "")))
        for place, row in enumerate(sorted(own, key=lambda row: (row["n"], row["radius"]))):
            name = [subject.label, f"{row['threshold']:.4g}"] if place == 0 else ["", ""]
            lines.append(
                [
                    *name,
                    radius_text(row["radius"], "l2"),
                    *_rate(row, clean, "tpr"),
                    *_rate(row, clean, "fpr"),
                ]
            )
    if len(lines) == 1:
        return ""
    width = max(len(line[0]) for line in lines)
    table = align([[line[0].ljust(width), *line[1:]] for line in lines])
    return "\n".join([_title(rules), *ABOUT, table])


ABOUT = (
    "TPR: at least, with the anomalies attacked (sides out, both); FPR: at most, with the normals attacked (in, both);",
    "images left alone have the rates of radius 0. 95 %: over the choice of test images (Clopper-Pearson)",
)


def _title(rules: Sequence[str]) -> str:
    known = [rule for rule in dict.fromkeys(rules) if rule]
    return "rates at the calibrated threshold" + (f"; {'; '.join(known)}" if known else "")


def _rate(row: Row, clean: Row | None, name: str) -> list[str]:
    interval = interval_text(row[f"{name}_interval"])
    return [MISSING if clean is None else cell_text(clean, name), cell_text(row, name), interval]
