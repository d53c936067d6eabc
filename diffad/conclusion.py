"""What a table of certificates comes to, in two or three lines, and what to try where it comes to nothing."""

from __future__ import annotations

from collections.abc import Sequence

from certify.text import short_text
from diffad.metric_rows import Row
from diffad.ranking import HALF
from diffad.tables import cell_text, strongest

COIN = 0.6  # a clean AUROC below this is hardly better than guessing


def conclusion(rows: Sequence[Row], detector: str) -> str:
    """Return the certified AUROC of one detector at each radius, which others certify more, and advice if it is none.

    Args:
        rows: of `diffad.metric_rows.auroc_table`, the detector's and those beside it.
        detector: its name in them.
    """
    clean = strongest(rows, detector=detector, condition="clean")
    proved = _certified(rows, detector)
    if clean is None or not proved:
        return ""
    cells = ", ".join(f"{cell_text(row)} at {short_text(radius)}" for radius, row in proved.items())
    lines = [f"in short: {detector}, AUROC {clean['auroc']:.3f} clean; certified at L2: {cells}"]
    lines += [line] if (line := _others(rows, detector, proved)) else []
    lines += [line] if (line := _advice(float(clean["auroc"]), list(proved.values()))) else []
    return "\n".join(lines)


def _certified(rows: Sequence[Row], detector: str) -> dict[float, Row]:
    """The rows with both labels attacked, by radius above 0."""
    where = {"detector": detector, "condition": "certified", "norm": "l2"}
    radii = {row["radius"] for row in rows if all(row[name] == value for name, value in where.items())}
    found = {
        radius: strongest(rows, **where, radius=radius, side="both") for radius in sorted(radii) if radius > 0
    }
    return {radius: row for radius, row in found.items() if row is not None}


def _others(rows: Sequence[Row], detector: str, proved: dict[float, Row]) -> str:
    """Name at each radius what certifies most where that is not the detector, and something."""
    names = [name for name in dict.fromkeys(row["detector"] for row in rows) if name != detector]
    better = []
    for radius, own in proved.items():
        beside = [row for name in names if (row := _certified(rows, name).get(radius)) is not None]
        best = max(beside, key=lambda row: row["auroc"], default=None)
        if best is not None and best["auroc"] > max(own["auroc"], HALF):
            better.append(f"{best['detector']} {cell_text(best)} at {short_text(radius)}")
    return f"more is certified by {', '.join(better)}" if better else ""


def warning(clean: float, proved: Sequence[Row]) -> str:
    """Return that a detector tells next to nothing apart without any attacker; empty where it does, or is certified."""
    if clean >= COIN or any(row["auroc"] > HALF for row in proved):
        return ""
    return f"clean, this is {'hardly' if clean > HALF else 'no'} better than a coin, so there is nothing to certify"


def _advice(clean: float, proved: Sequence[Row]) -> str:
    if text := warning(clean, proved):
        return (
            f"{text}: do the defects survive the\n"
            "resolution (diffad data --sheet)? does another detector (patch_nn, pca) see them? was training too short?"
        )
    if all(row["auroc"] <= HALF for row in proved):
        return (
            "nothing is certified at these radii: try smaller ones (--radii), noise chosen for them (certify sweep),\n"
            "or another detector"
        )
    return ""
