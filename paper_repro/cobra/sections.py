"""The tables: radii, both twins under attack and certificate, and each ablation beside the main row."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from common.tables import Row, cell, means
from presets import ADVERSARIAL, CLEAN, MAIN_ROW

SIDES = ("clean", "in", "out", "both")
CERTIFIED = (0.1, 0.25)  # L2 radii
NAMES = {ADVERSARIAL: "adversarial", CLEAN: "clean twin"}
KEYS = ("problem", "family", "variant", "experiment", "condition", "norm", "radius", "side")


def tables(rows: Sequence[Row], chosen: Mapping[str, Any], logs: Mapping[str, Row]) -> str:
    """Return all tables that there are rows for, in Markdown."""
    found = means(rows, KEYS)
    parts = [choice_table(chosen), main_table(found, chosen)]
    parts += [ablation_table(found, experiment, logs) for experiment in MAIN_ROW]
    parts += [curve_table(found, norm) for norm in ("linf", "l2")]
    return "\n".join(part for part in parts if part)


def choice_table(chosen: Mapping[str, Any]) -> str:
    """Return the attacked AUROC of the clean twins on the held-out class at each candidate, and the choice."""
    own = {name: choice for name, choice in chosen.items() if "both" in choice}
    if not own:
        return ""
    candidates = list(dict.fromkeys(radius for choice in own.values() for radius in choice["both"]))
    lines = _head("Choice of the Linf radius: clean twin on another normal class, AUROC `both`")
    lines += _columns("problem", "class", *candidates, "chosen")
    for name, choice in own.items():
        cells = [_spread(choice["both"].get(radius, [])) for radius in candidates]
        eps = choice["eps"] + ("" if choice["reached"] else f", none is below {choice['below']}")
        lines.append(_line(name, choice["normal_class"], *cells, eps))
    return _text(lines)


def main_table(found: Sequence[Row], chosen: Mapping[str, Any]) -> str:
    """Return both twins of every problem: AUROC by side, that of the smoothed score, certified `both`."""
    own = [row for row in found if row["experiment"] in ("main", "certified", "published")]
    if not own:
        return ""
    published = any(row["experiment"] == "published" for row in own)
    certified = [f"certified {radius:g}" for radius in CERTIFIED]
    lines = _head("Main: attacked by the ensemble, certified under noise of .25 (L2)")
    lines += _columns(
        "problem",
        "training",
        "seeds",
        "Linf",
        *SIDES,
        *(["PGD-1000 x 10"] if published else []),
        "smoothed",
        *certified,
    )
    for name, variant in dict.fromkeys((row["problem"], row["variant"]) for row in own):
        part = [row for row in own if (row["problem"], row["variant"]) == (name, variant)]
        cells = main_cells(part, published=published)
        seeds = max(row["seeds"] for row in part)
        lines.append(_line(name, NAMES[variant], seeds, chosen.get(name, {}).get("eps", ""), *cells))
    return _text([*lines, *class_lines(own, published=published)])


def main_cells(part: Sequence[Row], *, published: bool) -> list[str]:
    """Return the cells of one problem and training."""
    attacked = sides(row for row in part if row["experiment"] == "main")
    mirror = sides(row for row in part if row["experiment"] == "published")
    certified = [row for row in part if row["experiment"] == "certified"]
    smoothed = next((row for row in certified if row["condition"] == "clean"), None)
    proved = {
        row["radius"]: row for row in certified if row["condition"] == "certified" and row["side"] == "both"
    }
    cells = [cell(attacked.get(side)) for side in SIDES]
    cells += [cell(mirror.get("both"))] if published else []
    return [*cells, cell(smoothed), *(cell(proved.get(radius), floor=True) for radius in CERTIFIED)]


def class_lines(own: Sequence[Row], *, published: bool) -> list[str]:
    """Return for families of several problems, such as the classes of a set, the mean and the worst of each side."""
    lines = []
    for family, variant in dict.fromkeys((row["family"], row["variant"]) for row in own):
        part = [row for row in own if (row["family"], row["variant"]) == (family, variant)]
        names = list(dict.fromkeys(row["problem"] for row in part))
        if len(names) < 2:
            continue
        by_side = [
            [row["mean"] for row in part if row["experiment"] == "main" and row["side"] == side]
            for side in SIDES
        ]
        blank = [""] * (1 + len(CERTIFIED) + published)
        for word, reduce in (("mean", statistics.fmean), ("worst", min)):
            cells = [f"{reduce(values):.3f}" if values else "" for values in by_side]
            lines.append(_line(f"{family}, {word} of {len(names)}", NAMES[variant], "", "", *cells, *blank))
    return lines


def ablation_table(found: Sequence[Row], experiment: str, logs: Mapping[str, Row]) -> str:
    """Return the rows of one experiment below the main one: AUROC by side, draws a pseudo-anomaly, cap hits."""
    lines = _head(f"Ablation: {experiment}")
    lines += _columns("problem", "row", "seeds", *SIDES, "tries", "cap hits")
    names = dict.fromkeys(row["problem"] for row in found if row["experiment"] == experiment)
    for name in names:
        own = [row for row in found if row["problem"] == name]
        variants = dict.fromkeys(row["variant"] for row in own if row["experiment"] == experiment)
        for place, variant in (("main", ADVERSARIAL), *((experiment, variant) for variant in variants)):
            part = [row for row in own if (row["experiment"], row["variant"]) == (place, variant)]
            if not part:
                continue
            by_side, label = sides(part), MAIN_ROW[experiment] if place == "main" else variant
            drawn = [line for run, line in logs.items() if run.rpartition("-")[0] == f"{name}-{variant}"]
            crafted = [_mean(drawn, key) for key in ("tries", "cap_hits")]
            cells = [cell(by_side.get(side)) for side in SIDES]
            lines.append(_line(name, label, part[0]["seeds"], *cells, *crafted))
    return _text(lines) if names else ""


def curve_table(found: Sequence[Row], norm: str) -> str:
    """Return AUROC `both` of both twins against the radius."""
    own = [row for row in found if row["experiment"] == norm]
    if not own:
        return ""
    radii = sorted({row["radius"] for row in own if row["condition"] == "attack"})
    lines = _head(f"AUROC `both` against the {norm} radius")
    lines += _columns("problem", "training", "clean", *(f"{radius * 255:.4g}/255" for radius in radii))
    for name, variant in dict.fromkeys((row["problem"], row["variant"]) for row in own):
        part = [row for row in own if (row["problem"], row["variant"]) == (name, variant)]
        clean = next((row for row in part if row["side"] == "clean"), None)
        both = {row["radius"]: row for row in part if row["side"] == "both"}
        lines.append(_line(name, NAMES[variant], cell(clean), *(cell(both.get(radius)) for radius in radii)))
    return _text(lines)


def sides(rows: Any) -> dict[str, Row]:
    """Return rows by who is attacked."""
    return {row["side"]: row for row in rows}


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return cell(
        {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
    )


def _mean(lines: Sequence[Row], key: str) -> str:
    values = [line[key] for line in lines if key in line]
    return f"{statistics.fmean(values):.2f}" if values else ""


def _head(title: str) -> list[str]:
    return [f"## {title}", ""]


def _columns(*names: str) -> list[str]:
    return [_line(*names), "|" + "---|" * len(names)]


def _line(*cells: object) -> str:
    return f"| {' | '.join(str(one) for one in cells)} |"


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"
