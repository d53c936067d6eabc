"""The tables of a report, as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from certify.text import ceil_text, short_text
from diffad import page
from diffad.conditions import Subject
from diffad.metric_rows import ATTACKED, Row, defect_table
from diffad.runs import NETWORK_FREE, Run
from diffad.tables import (
    MISSING,
    cell_text,
    confidence_text,
    find,
    interval_text,
    over_sets,
    radius_text,
    subject_of,
)

NORM = {"l2": "L2", "linf": "Linf", "": ""}


def table_html(rows: Sequence[Row], subjects: Iterable[Subject]) -> str:
    """AUROC by radius, certified and attacked, for each side; one table a subject and norm."""
    parts: list[str] = []
    convention: list[str] = []
    for subject in subjects:
        own = [row for row in rows if subject_of(row) == subject]
        clean = find(own, condition="clean")
        for norm in sorted({row["norm"] for row in own if row["norm"]}):
            for alpha_kind in _levels(own, norm):
                where = convention if alpha_kind == "per_image" else parts
                where.append(_auroc_table(subject.label, norm, alpha_kind, clean, own))
    note = (
        "AUROC; in: normal images are attacked; out: anomalous images; both: all of them. "
        "no bound: share of images with no finite bound, which lose every comparison. In brackets the 95 % interval "
        "over the choice of test images (DeLong, below it the bootstrap), which a certificate's alpha does not cover: "
        "that is about its noise."
    )
    html = "".join(parts) + page.paragraph(note, "note")
    return html + page.folded("At alpha an image, the literature's convention", "".join(convention))


def _levels(rows: list[Row], norm: str) -> list[str | None]:
    """The kinds of alpha with certified rows in this norm; None for attacks alone."""
    certified = [row for row in rows if row["condition"] == "certified" and row["norm"] == norm]
    return sorted({row["alpha_kind"] for row in certified}, reverse=True) or [None]


def _auroc_table(label: str, norm: str, alpha_kind: str | None, clean: Row | None, own: list[Row]) -> str:
    certified = [
        r for r in own if (r["condition"], r["norm"], r["alpha_kind"]) == ("certified", norm, alpha_kind)
    ]
    attacked = [r for r in own if (r["condition"], r["norm"]) == ("attack", norm)]
    unbounded = any(row["infinite"] > 0 for row in certified)
    groups, head = [("", 1)], [f"{NORM[norm]} radius"]
    if certified:
        groups.append(("certified", 4 + unbounded))
        head += [*ATTACKED, "both, 95 %", *(["no bound"] if unbounded else [])]
    methods = sorted({r["method"] for r in attacked})
    for method in methods:
        groups.append((f"attacked by {method}" if method else "attacked", 3))
        head += ATTACKED
    lines = [head]
    for radius in sorted({r["radius"] for r in (*certified, *attacked)}):
        line = [radius_text(radius, norm)]
        if certified:
            here = [r for r in certified if r["radius"] == radius]
            line += [cell_text(find(here, side=side)) for side in ATTACKED]
            both = find(here, side="both")
            line.append(two_intervals(both))
            line += [ceil_text(100 * here[0]["infinite"], 0) + " %" if here else MISSING] if unbounded else []
        for method in methods:
            here = [r for r in attacked if (r["radius"], r["method"]) == (radius, method)]
            line += [cell_text(find(here, side=side)) for side in ATTACKED]
        lines.append(line)
    strong = [i for i, name in enumerate(head) if name == "both"]
    spread = interval_text((clean["auroc_interval"] or clean["auroc_bootstrap"]) if clean else None)
    caption = [label, f"AUROC {cell_text(clean)} {spread} without an attacker{over_sets(clean or {})}"]
    caption += [confidence_text(certified[0])] if certified else []
    return page.table(lines, groups=groups, caption="; ".join(caption), strong=strong)


def two_intervals(row: Row | None) -> str:
    """DeLong's interval of the AUROC of a row and, below it, the bootstrap's where there is one."""
    if row is None:
        return MISSING
    found = [row["auroc_interval"], row["auroc_bootstrap"]]
    return "\n".join(interval_text(interval) for interval in found if interval is not None) or MISSING


def rates_html(rows: Sequence[Row], subjects: Iterable[Subject]) -> str:
    """FPR at 95 % TPR and the rates at the calibrated threshold, each with its interval over test images."""
    head = ["", "FPR at 95 % TPR", "TPR at threshold", "FPR at threshold"]
    parts = []
    for subject in subjects:
        chosen = [r for r in rows if subject_of(r) == subject and r["side"] in ("clean", "both")]
        chosen = [r for r in chosen if r["alpha_kind"] != "per_image"]
        lines = [[_threat(row), *(_rate(row, name) for name in ("fpr95", "tpr", "fpr"))] for row in chosen]
        parts.append(page.table([head, *lines], caption=subject.label))
    note = (
        "In brackets the 95 % Clopper-Pearson interval over the test images, for the rate as it stands. "
        "Certified rates are bounds: TPR at least, FPR at most. The threshold comes from held-out normal images."
    )
    rule = next((row["threshold_rule"] for row in rows if row.get("threshold_rule")), None)
    note += "" if rule is None else f" It is set by {rule}."
    return page.folded("Rates at thresholds", "".join(parts) + page.paragraph(note, "note"))


def _threat(row: Row) -> str:
    if row["condition"] == "clean":
        return "clean"
    by = f" by {row['method']}" if row["method"] else ""
    name = "attacked" + by if row["condition"] == "attack" else "certified"
    return f"{name}, {NORM[row['norm']]} {radius_text(row['radius'], row['norm'])}"


def _rate(row: Row, name: str) -> str:
    interval = row[f"{name}_interval"]
    if interval is None:
        return MISSING
    text = cell_text(row, name)
    return text if row.get("failed_checks") else f"{text} {interval_text(interval)}"


def defects_html(run: Run) -> str:
    """Clean AUROC of each kind of defect; nothing where there is but one."""
    parts = []
    rows = defect_table(run)
    for subject in dict.fromkeys(subject_of(row) for row in rows):
        own = [row for row in rows if subject_of(row) == subject]
        lines = [[row["defect"], str(row["anomalies"]), f"{row['auroc']:.3f}"] for row in own]
        if len(own) > 1:
            parts.append(page.table([["kind", "images", "clean AUROC"], *lines], caption=subject.label))
    return (
        page.folded("Clean AUROC by kind of defect, each against all normal images", "".join(parts))
        if parts
        else ""
    )


def matrix_html(rows: Sequence[Row]) -> str:
    """Subjects against L2 radii: certified AUROC and below it the attacked one. Rows from `compare_table`."""
    radii = sorted({row["radius"] for row in rows})
    lines = [["detector", "clean", *(short_text(radius) for radius in radii)]]
    ranked = sorted(rows, key=lambda row: row["detector"] in NETWORK_FREE)
    for label in dict.fromkeys(row["label"] for row in ranked):
        own = {row["radius"]: row for row in rows if row["label"] == label}
        clean = next(iter(own.values()))
        lines.append([label, number_texts(clean)[0], *(_interval(own.get(radius)) for radius in radii)])
    return page.table(lines, groups=[("", 2), ("L2 radius", len(radii))], strong=range(2, len(radii) + 2))


def _interval(row: Row | None) -> str:
    if row is None:
        return MISSING
    _, certified, attacked = number_texts(row)
    if attacked == MISSING:
        return certified
    return f"{certified}\n{attacked}" if row["failed_checks"] else f"{certified}\n≤ {attacked}"


def number_texts(row: Row, digits: int = 3) -> list[str]:
    """Clean, certified and attacked AUROC of a row of `compare_table`."""
    cells = {
        "clean": {"condition": "clean"},
        "certified": {"condition": "certified"},
        "attacked": {"condition": "attack", "failed_checks": row["failed_checks"]},
    }
    return [cell_text({**cell, "auroc": row[name]}, "auroc", digits) for name, cell in cells.items()]
