"""The tables: detectors under attack, each ablation beside the base row, fresh noise, and the certificates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.tables import Row, cell, means
from presets import ABLATIONS, BASE_NAME, BASE_ROW, KNOWN, MAIN_CERTIFICATE

SIDES = ("in", "out", "both")
KEYS = ("problem", "experiment", "variant", "attacked_in", "detector", "condition", "norm", "radius", "side")
TITLES = {
    "timestep": "the diffusion step k",
    "shots": "network calls of a reconstruction",
    "scales": "scales of the error map",
    "score": "the score of the residual",
    "train_mean": "the mean error of normals that is subtracted",
}
NETWORK_FREE = ("pixel_mean", "pca", "pixel_nn", "patch_nn")


def tables(rows: Sequence[Row], n: int) -> str:
    """Return all tables that there are rows for, in Markdown; `n` is the number of draws of a certificate."""
    found = means(rows, KEYS)
    parts: list[str] = []
    for problem in dict.fromkeys(row["problem"] for row in rows):
        own = [row for row in found if row["problem"] == problem]
        parts.append(detector_table(own, problem))
        parts += [ablation_table(own, problem, table) for table in ABLATIONS]
        parts += [eot_table(own, problem), certified_table(own, problem, n), same_score_table(own, problem)]
    return "\n".join(part for part in parts if part)


def detector_table(own: Sequence[Row], problem: str) -> str:
    """Return clean and attacked AUROC of the detector and the baselines, both norms."""
    part = [row for row in own if row["experiment"] == "detectors"]
    if not part:
        return ""
    radii = {row["norm"]: row["radius"] for row in part if row["condition"] == "attack"}
    heads = ["detector", "clean"]
    heads += [f"{norm} {size(norm, radius)}: {side}" for norm, radius in radii.items() for side in SIDES]
    lines = [f"## Detectors under the ensemble attack: {problem}", "", *columns(*heads)]
    for variant in dict.fromkeys(row["variant"] for row in part):
        one = [row for row in part if row["variant"] == variant]
        cells = [cell(clean(one))]
        cells += [cell(attacked(one, side, norm=norm)) for norm in radii for side in SIDES]
        lines.append(line(title(variant), *cells))
    return text(lines)


def ablation_table(own: Sequence[Row], problem: str, table: str) -> str:
    """Return the base row and those with one thing changed, under the ensemble in L2."""
    part = [row for row in own if row["experiment"] == table]
    if not part:
        return ""
    radius = next(row["radius"] for row in part if row["condition"] == "attack")
    head = f"## Ablation, {TITLES[table]}: {problem}, the ensemble, L2 {radius:g}"
    lines = [head, "", *columns("row", "clean", *SIDES)]
    for variant in variants_of(table):
        one = [row for row in part if row["variant"] == variant]
        if one:
            name = f"{BASE_ROW[table]} (base)" if variant == BASE_NAME else variant
            lines.append(line(name, cell(clean(one)), *(cell(attacked(one, side)) for side in SIDES)))
    return text(lines)


def variants_of(table: str) -> list[str]:
    """Return the rows of an ablation, along the diffusion step where that is what changes."""
    names = [BASE_NAME, *ABLATIONS[table]]
    if table != "timestep":
        return names
    return sorted(names, key=lambda name: step_of(name))


def step_of(variant: str) -> int:
    """Return the diffusion step of a row of that ablation."""
    name = BASE_ROW["timestep"] if variant == BASE_NAME else variant
    return int(name.partition("-")[2])


def eot_table(own: Sequence[Row], problem: str) -> str:
    """Return the attack on stored noise, which it knows, beside those on the mean score under fresh noise."""
    part = [row for row in own if row["experiment"] == "eot"]
    if not part:
        return ""
    lines = [
        f"## The detector's noise: {problem}, PGD, L2",
        "",
        *columns("noise", "draws a step", "clean", *SIDES),
    ]
    for draws in dict.fromkeys(row["variant"] for row in part):
        one = [row for row in part if row["variant"] == draws]
        noise = ("fixed, known to the attacker", "all") if draws == KNOWN else ("fresh", draws)
        lines.append(line(*noise, cell(clean(one)), *(cell(attacked(one, side)) for side in SIDES)))
    return text(lines)


def certified_table(own: Sequence[Row], problem: str, n: int) -> str:
    """Return the certified AUROC `both` against the L2 radius, the network-free rows last."""
    part = [row for row in own if row["experiment"] in ("certified", "draws")]
    if not part:
        return ""
    radii = sorted({row["radius"] for row in part if row["condition"] == "certified"})
    head = f"## Certified AUROC `both` against the L2 radius: {problem}, n = {n} unless stated"
    lines = [head, "", *columns("way, score, noise", "smoothed", *(f"{radius:g}" for radius in radii))]
    subjects = dict.fromkeys((row["variant"], row["detector"]) for row in part)
    network = [one for one in subjects if one[1] not in NETWORK_FREE]
    for variant, detector in [*network, *(one for one in subjects if one not in network)]:
        one = [row for row in part if (row["variant"], row["detector"]) == (variant, detector)]
        proved = {r["radius"]: r for r in one if r["condition"] == "certified" and r["side"] == "both"}
        name = detector if detector in NETWORK_FREE else variant
        cells = [cell(proved.get(radius), floor=True) for radius in radii]
        lines.append(line(name, cell(clean(one)), *cells))
    return text(lines)


def same_score_table(own: Sequence[Row], problem: str) -> str:
    """Return certified, attacked and clean AUROC of one smoothed score on the same images."""
    part = [row for row in own if row["experiment"] == "same_score"]
    if not part:
        return ""
    lines = [f"## The same smoothed score certified and attacked: {problem}, {MAIN_CERTIFICATE}", ""]
    lines += columns("L2", "certified", "attacked", "clean")
    for radius in sorted({row["radius"] for row in part if row["condition"] == "attack"}):
        at = [row for row in part if row["radius"] == radius and row["side"] == "both"]
        proved = next((row for row in at if row["condition"] == "certified"), None)
        reached = next((row for row in at if row["condition"] == "attack"), None)
        lines.append(line(f"{radius:g}", cell(proved, floor=True), cell(reached), cell(clean(part))))
    return text(lines)


def clean(rows: Iterable[Row]) -> Row | None:
    """Return the row without an attacker."""
    return next((row for row in rows if row["condition"] == "clean"), None)


def attacked(rows: Iterable[Row], side: str, *, norm: str | None = None) -> Row | None:
    """Return the attacked row of a side."""
    found = (row for row in rows if row["condition"] == "attack" and row["side"] == side)
    return next((row for row in found if norm in (None, row["norm"])), None)


def size(norm: str, radius: float) -> str:
    """Return a radius as people write it: Linf in 255ths."""
    return f"{radius * 255:.3g}/255" if norm == "linf" else f"{radius:g}"


def title(variant: str) -> str:
    """Return the name of a row of the detector table."""
    return {BASE_NAME: "diffusion, published score", "l2": "diffusion, L2 score"}.get(variant, variant)


def columns(*names: str) -> list[str]:
    """Return the head of a table."""
    return [line(*names), "|" + "---|" * len(names)]


def line(*cells: object) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(str(one) for one in cells)} |"


def text(lines: Sequence[str]) -> str:
    """Return lines that end."""
    return "\n".join(lines) + "\n"
