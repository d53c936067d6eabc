"""Which of the published directions hold in the rows measured here (`expected_direction` in expected.yaml)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from chains import KS
from presets import KINDS

Row = dict[str, Any]
SLACK = 0.01  # AUROC; that less apart counts as level
LITTLE = 0.05  # AUROC over all numbers of neighbours


def directions(rows: Sequence[Row]) -> str:
    """Return Markdown lines, one a direction and test set, with the figures (side `both`) that decide it."""
    lines = [line for name in dict.fromkeys(row["set"] for row in rows) for line in _of_set(name, rows)]
    return "\n".join(lines) + "\n" if lines else ""


def _of_set(name: str, rows: Sequence[Row]) -> Iterator[str]:
    own = [row for row in rows if row["set"] == name and row["side"] in ("both", "clean")]
    seed = min(row["seed"] for row in own)
    found = {
        (row["kind"], row["experiment"]): row["auroc"]
        for row in own
        if row["seed"] == seed and row["condition"] == "attack" and row["experiment"] != "curve"
    }
    if all((kind, "attack") in found for kind in KINDS):
        standard, robust = found["standard", "attack"], found["robust", "attack"]
        yield _line(
            name,
            robust > standard + SLACK,
            f"robust weights keep {robust:.3f} under attack, standard {standard:.3f}",
        )
    for kind in KINDS:
        if all((kind, experiment) in found for experiment in ("surrogate", "score")):
            surrogate, score = found[kind, "surrogate"], found[kind, "score"]
            yield _line(
                name,
                surrogate > score + SLACK,
                f"{kind}: the surrogate leaves {surrogate:.3f}, the same PGD on the score {score:.3f}",
            )
        curve = sorted(
            (row["radius"], row["auroc"])
            for row in own
            if (row["kind"], row["experiment"], row["seed"]) == (kind, "curve", seed)
        )
        if curve:
            values = [value for _, value in curve]
            falls = all(after <= before for before, after in pairwise(values))
            yield _line(
                name, falls, f"{kind}: falls with the radius, " + ", ".join(f"{v:.3f}" for v in values)
            )
    attacked = [found["robust", f"k{k}"] for k in KS if ("robust", f"k{k}") in found]
    if len(attacked) == len(KS):
        shown = ", ".join(f"{value:.3f}" for value in attacked)
        yield _line(
            name, max(attacked) - min(attacked) < LITTLE, f"k = 1, 2, 5, 10 matters little, attacked {shown}"
        )


def _line(name: str, holds: bool, text: str) -> str:
    return f"- {name}: {'holds' if holds else 'DOES NOT HOLD'}: {text}"
