"""What `certify` prints: tables for people, or one JSON object."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from certify import console
from certify.bounds import linf_reading
from certify.text import floor_text, short_text
from certify.types import FloatArray
from diffad.data import DataSplit
from diffad.plan import Plan
from diffad.rates_table import format_rates
from diffad.tables import format_table

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def radius_quantiles(sizes: FloatArray | None, split: DataSplit) -> dict[str, dict[str, float]]:
    """Quantiles of the certified radius at the threshold, normals and anomalies apart; none without sizes."""
    if sizes is None:
        return {}
    labels = split.test.labels.numpy()
    kinds = {"normal": sizes[labels == 0], "anomalous": sizes[labels == 1]}
    return {
        kind: {f"{q:g}": float(np.quantile(values, q, method="lower")) for q in QUANTILES}
        for kind, values in kinds.items()
    }


def linf_readings(plan: Plan, split: DataSplit) -> dict[str, float]:
    """Return for each L2 radius the Linf radius r / sqrt(d) that it holds, d the values of an image."""
    pixels = math.prod(split.test.images.shape[1:])
    return {short_text(radius): linf_reading(radius, pixels) for radius in plan.radii if radius > 0}


def show(
    as_json: bool,
    rows: list[dict[str, Any]],
    quantiles: dict[str, dict[str, float]],
    linf: dict[str, float],
    folder: Path,
    detector: str,
    level: float | None,
) -> None:
    """Print results to stdout: tables, that of `detector` first, or one JSON object.

    `level` is that of each image's certified radius, None where nothing is random.
    """
    if as_json:
        found = {"auroc": rows, "certified_radius": quantiles, "linf_reading": linf}
        print(json.dumps({"folder": str(folder), **found}))
        return
    print(format_table(sorted(rows, key=lambda row: row["detector"] != detector)))
    rates = format_rates(rows)
    if rates:
        print("\n" + rates)
    if linf:
        pairs = ", ".join(f"{radius} holds {floor_text(value, 5)}" for radius, value in linf.items())
        print(f"\nLinf reading (r / sqrt(d), the largest Linf ball inside the L2 ball): {pairs}")
    if not quantiles:
        console.say(f"\nrun folder: {folder}   (diffad report {folder} makes the page)")
        return
    held = "without noise" if level is None else f"alpha = {level:g}"
    print(
        "\ncertified L2 radius of the decision at the threshold (0: wrong or not certified), "
        f"of each image by itself, {held}"
    )
    print("quantile   " + "  ".join(f"{q:>6g}" for q in QUANTILES))
    for kind, values in quantiles.items():
        print(f"{kind:<10} " + "  ".join(f"{floor_text(value, 3):>6}" for value in values.values()))
    console.say(f"\nrun folder: {folder}   (diffad report {folder} makes the page)")
