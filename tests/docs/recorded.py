"""Values of recorded runs, asked for by what they are: nothing here knows a document.

Every query must find exactly one value; several rows that answer it have to agree.
"""

from __future__ import annotations

import json
import statistics
from functools import cache
from typing import Any

from tracing import ROOT, Floor

from diffad.behind import behind, shown_certificate
from diffad.diffusion.model import Denoiser
from diffad.results import read_run

Row = dict[str, Any]
RESULTS = ROOT / "docs" / "results"
PAPERS = ROOT / "paper_repro"
EPS = 1e-9


@cache
def load(file: str) -> Any:
    """Return a JSON file by its path from the root."""
    return json.loads((ROOT / file).read_text(encoding="utf-8"))


def results(name: str) -> Any:
    """Return a JSON file below docs/results."""
    return load(f"docs/results/{name}")


def matches(row: Row, where: Row) -> bool:
    """Whether a row has these values; numbers within a billionth."""
    for key, wanted in where.items():
        value = row.get(key)
        if isinstance(wanted, float) and isinstance(value, int | float):
            if abs(value - wanted) > EPS:
                return False
        elif value != wanted:
            return False
    return True


def one(rows: list[Row], **where: Any) -> Row:
    """Return the only row with these values."""
    found = [row for row in rows if matches(row, where)]
    assert len(found) == 1, f"{len(found)} rows with {where}"
    return found[0]


def agreed(values: list[float], what: object) -> float:
    """Return the value that all are."""
    assert values, f"nothing is recorded for {what}"
    assert max(values) - min(values) < EPS, f"{what}: {values}"
    return values[0]


def auroc(folder: str, detector: str, condition: str = "clean", radius: float = 0.0, **where: Any) -> float:
    """Return an AUROC of a run folder of docs/results, side `both`, all images of a cell together."""
    where = {"detector": detector, "condition": condition, "radius": radius, **where}
    where.setdefault("side", "clean" if condition == "clean" else "both")
    rows = [row for row in results(f"{folder}/summary.json")["auroc"] if row["alpha_kind"] != "per_image"]
    return agreed([row["auroc"] for row in rows if matches(row, where)], where)


def certified(folder: str, detector: str, radius: float, **where: Any) -> Floor:
    """Return a certified AUROC, which is floored where it is printed."""
    return Floor(auroc(folder, detector, "certified", radius, **where))


def attacked(folder: str, detector: str, radius: float, **where: Any) -> float:
    """Return an attacked AUROC."""
    return auroc(folder, detector, "attack", radius, **where)


def defect(folder: str, detector: str, kind: str) -> float:
    """Return the clean AUROC of one kind of defect."""
    return one(results(f"{folder}/summary.json")["defects"], detector=detector, defect=kind)["auroc"]


def behind_best(folder: str, label: str, radius: float) -> list[float]:
    """Return by how much a row of a comparison lies behind the best: difference, low, high."""
    return one(results(f"{folder}/compare.json")["rows"], label=label, radius=radius)["behind"]


@cache
def paired(folder: str, detector: str, other_folder: str, other: str, radius: float) -> list[float]:
    """Return certified AUROC of the first less that of the other on the same images: difference, low, high."""
    shown = []
    for name, wanted in ((folder, detector), (other_folder, other)):
        run = read_run(RESULTS / name)
        subject = next(s for s in run.subjects if s.detector == wanted)
        shown.append(shown_certificate(run, subject, radius))
    difference = behind(*shown, {})[0]
    assert difference is not None
    return difference


@cache
def parameters(training: str, resolution: int) -> float:
    """Return the parameters, in millions, of the grey network that a recorded training built."""
    config = results(training)["commands"][0]["config"]
    names = ("layers_per_block", "space_to_depth", "norm_num_groups", "prediction_type")
    network = Denoiser.build(
        (1, resolution, resolution),
        block_out_channels=tuple(config["block_out_channels"]),
        attention_levels=tuple(config["attention_levels"]),
        **{name: config[name] for name in names},
    )
    return sum(weight.numel() for weight in network.parameters()) / 1e6


def paper_rows(paper: str, preset: str) -> list[Row]:
    """Return the rows of a reproduction."""
    rows: list[Row] = load(f"paper_repro/{paper}/results/{preset}/summary.json")["rows"]
    return rows


def check(run: str, name: str) -> float:
    """Return what a check of the attack of a run of paper_repro measured."""
    checks = load(f"paper_repro/{run}/manifest.json")["commands"][0]["attacks"][0]["checks"]
    return float(one(checks, name=name)["value"])


def seeds(rows: list[Row], **where: Any) -> list[float]:
    """Return an AUROC for each seed, in order."""
    found = {row["seed"]: row["auroc"] for row in rows if matches(row, where)}
    assert found, f"nothing is recorded for {where}"
    assert len(found) == sum(matches(row, where) for row in rows), f"more than one row a seed with {where}"
    return [found[seed] for seed in sorted(found)]


def mean(rows: list[Row], **where: Any) -> float:
    """Return the mean over seeds."""
    return statistics.fmean(seeds(rows, **where))


def spread(rows: list[Row], **where: Any) -> tuple[float, float]:
    """Return mean and standard deviation over seeds."""
    values = seeds(rows, **where)
    return statistics.fmean(values), statistics.stdev(values)
