"""ATD beside what is recorded: detectors, ablations and sides on digits against two outlier sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paper_repro.published.table import (
    ABSENT,
    SLACK,
    Line,
    Row,
    Table,
    expected,
    holds,
    mean,
    not_run,
    number,
    percent,
    summary,
)

PAPER, PRESET = "atd", "cpu"
SIDES = ("clean", "in", "out", "both")
CONDITIONS = "digits 0 to 4 against 5 to 9 and textures; ensemble, Linf 16/255; mean of three trainings"
NETWORKS = "a robust and a standard network of CIFAR-10, and outlier sets"
FILES = "--robust DIR --standard DIR --device cuda"
# What stands for the rows of Tables 1 and 3 here: the same score of a robust or of a standard classifier.
DETECTORS = {
    "ATD": "atd",
    "HAT (OpenMax)": "openmax_robust",
    "ALOE (MSP)": "msp_robust",
    "ViT (MD)": "mahalanobis_standard",
}
ABLATIONS = {
    "standard extractor, attacked training": "standard_extractor",
    "robust extractor, no attacked training of D": "no_attacker",
    "pixel": "pixel",
    "pixel, generated images attacked": "pixel_attacked_generated",
}


def tables() -> list[Table]:
    """Return the published tables beside our rows."""
    rows: list[Row] = summary(PAPER, PRESET)["rows"]
    known = expected(PAPER)
    full = known["table_1"]["cifar10"]["ATD"]
    head = "clean / in / out / both"
    return [
        Table(
            f"ATD: CIFAR-10, {head} (Table 1)",
            compared(rows, known["table_1"]["cifar10"], full, DETECTORS, "detectors"),
        ),
        Table(f"ATD: CIFAR-100, {head} (Table 1)", absent(known["table_1"]["cifar100"])),
        Table(
            f"ATD: one thing changed, {head} (Table 3)",
            compared(rows, known["table_3"], full, ABLATIONS, "ablations"),
        ),
        Table(f"ATD: another open-set training, {head} (Table 5)", absent(known["table_5"])),
    ]


def compared(
    rows: Sequence[Row],
    known: Mapping[str, Any],
    full: Mapping[str, float],
    names: Mapping[str, str],
    experiment: str,
) -> tuple[Line, ...]:
    """Return rows with whether they lie below ATD under attack, as published."""
    best = _sides(rows, "atd", experiment)["both"]
    lines = []
    for name, row in known.items():
        ours = _sides(rows, names[name], experiment) if name in names else {}
        if ours.get("both") is None or best is None:
            lines.append(Line(name, _percents(row), verdict=not_run(PAPER, "paper", FILES, NETWORKS)))
            continue
        if name == "ATD":
            verdict = holds(
                ours["both"] > 0.5, f"above chance, {ours['both'] / ours['clean']:.0%} of the clean AUROC"
            )
        else:
            below, there = ours["both"] + SLACK < best, row["both"] < full["both"]
            words = f"{ours['both']:.3f} with both sides attacked, ATD {best:.3f}"
            words = f"{words}; published {'below' if there else 'above'} it"
            verdict = holds(below == there, words)
        cells = " / ".join(number(ours[side]) for side in SIDES)
        conditions = CONDITIONS if name == names[name] or name == "ATD" else f"`{names[name]}`; {CONDITIONS}"
        lines.append(Line(name, _percents(row), cells, conditions, verdict))
    return tuple(lines)


def absent(known: Mapping[str, Any]) -> tuple[Line, ...]:
    """Return published rows that nothing here stands for."""
    return tuple(
        Line(name, _percents(row), ABSENT, ABSENT, not_run(PAPER, "paper", FILES, NETWORKS))
        if name == "ATD"
        else Line(name, _percents(row), verdict="not repeated: another paper's training")
        for name, row in known.items()
    )


def _sides(rows: Sequence[Row], variant: str, experiment: str) -> dict[str, Any]:
    where = {"problem": "digits", "experiment": experiment, "variant": variant, "set": "mean"}
    return {side: mean(rows, side=side, **where) for side in SIDES}


def _percents(row: Mapping[str, float]) -> str:
    return " / ".join(percent(row[side]) for side in SIDES)
