"""`diffad compare RUN...`: several runs on one data set, side by side: table, figure and one HTML page."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from certify.checks import InputError
from certify.console import say
from certify.files import write_bytes, write_json, write_text
from certify.text import ceil_text, floor_text, short_text
from diffad import page
from diffad.behind import behind, shown_certificate
from diffad.conditions import Condition
from diffad.metric_rows import Row, auroc_table
from diffad.order import OrderError, check_order
from diffad.outlier_sets import is_ood
from diffad.plots import both_themes, headline, subject_labels
from diffad.report_tables import matrix_html, number_texts
from diffad.results import read_run
from diffad.runs import Run, join_runs
from diffad.sandwich import FOLDER as VIOLATIONS
from diffad.sandwich import check_sandwich, save_violations
from diffad.tables import (
    ESTIMATED,
    MISSING,
    align,
    find,
    interval_text,
    strongest,
    subject_of,
    total_alpha,
)


def compare_command(runs: Sequence[Path | str], output_dir: Path | str, *, json: bool = False) -> Path:
    """Write `compare.html`, `compare.json` and `compare.png`, and print the table (or the JSON object).

    Returns the page's path. Raises `InputError` for runs on different data or resolutions, and `OrderError`
    where certified <= attacked <= clean does not hold, or where an attacked image left its certified interval: such
    images are saved in the folder `violations`.
    """
    loaded = [read_run(run) for run in runs]
    check_comparable(loaded)
    output, data = Path(output_dir), loaded[0].manifest["data"]
    sandwich = check_sandwich(loaded)
    if sandwich.violations:
        folder = save_violations(output / VIOLATIONS, sandwich.violations)
        raise OrderError(
            f"{sandwich.sentence}, saved in {folder}; the first: {sandwich.violations[0].sentence}"
        )
    order = check_order(loaded)
    rows = compare_table(loaded)
    sentence = "; ".join(filter(None, (order.sentence, sandwich.sentence)))
    content = {
        "data": data,
        "order": sentence,
        "sandwich": {"judged": sandwich.judged, "unjudged": sandwich.unjudged, "violations": 0},
        "notes": notes(rows),
        "rows": rows,
    }
    picture = both_themes(lambda theme: headline(loaded, theme=theme))
    write_bytes(output / "compare.png", picture[0])
    write_text(output / "compare.html", compare_html(data, rows, sentence, picture))
    write_json(output / "compare.json", content)
    print(jsonlib.dumps(content) if json else format_comparison(rows) + f"\n\n{sentence}")
    say(f"comparison: {output / 'compare.html'}")
    return output / "compare.html"


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs whose test images differ: their numbers do not belong into one table."""
    if not runs:
        raise InputError("compare: got no run; name at least one run folder")
    first = runs[0]
    for run in runs[1:]:
        one, other = first.manifest["data"], run.manifest["data"]
        for name in ("fingerprint", "resolution"):
            if one[name] != other[name]:
                raise InputError(
                    f"compare: {first.folder} holds {_describe(one)}, {run.folder} holds {_describe(other)}; "
                    "compare runs of one data set at one resolution"
                )
        ways = [is_ood(data.get("options", {})) for data in (one, other)]
        if ways[0] != ways[1]:
            said = ["means over outlier sets" if way else "AUROCs of all images together" for way in ways]
            raise InputError(
                f"compare: {first.folder} states {said[0]}, {run.folder} states {said[1]}; compare runs of one protocol"
            )


def _describe(data: dict[str, Any]) -> str:
    return f"{data['name']} at {data['resolution']} pixels (fingerprint {str(data['fingerprint'])[:8]})"


def compare_table(runs: Sequence[Run]) -> list[Row]:
    """One row for each L2 radius and subject, side `both`: the AUROC three ways, best certified first.

    Keys: radius, label, run (folder name), the fields of `Subject`, clean, certified, attacked (None where
    missing), method and failed_checks of the attack (None: not checked), infinite, n, alpha (of the whole cell),
    normals, anomalies; auroc_interval, DeLong's 95 % interval of the certified AUROC over the test images, and
    behind: [difference, low, high], by how much it lies behind the best certified row at this radius, with the
    95 % interval of DeLong's paired test (None for the best, and for rows on other images); behind_bootstrap: that of
    the paired bootstrap (`diffad.resampled`). Of means over outlier sets the bootstrap alone speaks: auroc_bootstrap
    stands where auroc_interval is None, and behind holds the bootstrap's interval.
    """
    rows: list[Row] = []
    proved: dict[tuple[float, str], Condition | None] = {}
    options = runs[0].manifest["data"].get("options", {}) if runs else {}
    labels = subject_labels(runs)
    for run in join_runs(runs):
        table = auroc_table(run)
        for subject in run.subjects:
            label = labels[run.folder, subject]
            # joined runs bear the name of the last folder, which need not be where this subject comes from
            folders = [one.folder.name for one in runs if subject in one.subjects]
            source = run.folder.name if run.folder.name in folders else folders[-1]
            own = [row for row in table if subject_of(row) == subject]
            for radius in sorted({row["radius"] for row in own if row["norm"] == "l2"}):
                rows.append({"radius": radius, "label": label, "run": source, **_cell(own, radius)})
                proved[radius, label] = shown_certificate(run, subject, radius)
    rows.sort(key=lambda row: (row["radius"], -(row["certified"] if row["certified"] is not None else -1)))
    best = {row["radius"]: row["label"] for row in reversed(rows)}
    for row in rows:
        first, other = (proved.get((row["radius"], name)) for name in (best[row["radius"]], row["label"]))
        differ = row["label"] != best[row["radius"]]
        row["behind"], row["behind_bootstrap"] = behind(first, other, options) if differ else (None, None)
    return rows


def _cell(rows: list[Row], radius: float) -> Row:
    clean = find(rows, condition="clean")
    at = {"norm": "l2", "radius": radius, "side": "both"}
    certified = strongest(rows, condition="certified", **at)
    attacked = strongest(rows, condition="attack", **at)
    base = certified or attacked or rows[0]
    return {
        **subject_of(base)._asdict(),
        "clean": None if clean is None else clean["auroc"],
        "certified": None if certified is None else certified["auroc"],
        "attacked": None if attacked is None else attacked["auroc"],
        "method": "" if attacked is None else attacked["method"],
        "failed_checks": None if attacked is None else attacked.get("failed_checks"),
        "infinite": None if certified is None else certified["infinite"],
        "auroc_interval": None if certified is None else certified["auroc_interval"],
        "auroc_bootstrap": None if certified is None else certified["auroc_bootstrap"],
        "n": base["n"],
        "alpha": None if certified is None else total_alpha(certified),
        "normals": base["normals"],
        "anomalies": base["anomalies"],
        **by_set(clean, certified, attacked),
    }


def by_set(clean: Row | None, certified: Row | None, attacked: Row | None) -> Row:
    """Under "sets" what a row says of each outlier set, clean, certified and attacked; empty without sets."""
    columns = {"clean": clean, "certified": certified, "attacked": attacked}
    found = {kind: row.get("auroc_sets", {}) for kind, row in columns.items() if row is not None}
    names = dict.fromkeys(name for one in found.values() for name in one)
    sets = {name: {kind: found.get(kind, {}).get(name) for kind in columns} for name in names}
    return {"sets": sets} if sets else {}


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader has to know before comparing: means over outlier sets, rows on different numbers of images."""
    counts = {(row["normals"], row["anomalies"]) for row in rows}
    sets = list(dict.fromkeys(name for row in rows for name in row.get("sets", {})))
    said = []
    if sets:
        said = [
            f"every AUROC is the unweighted mean over the outlier sets {', '.join(sets)}; its intervals are those of "
            "the bootstrap, normals drawn once for all sets"
        ]
    if len(counts) <= 1:
        return said
    parts = ", ".join(f"{normals} + {anomalies}" for normals, anomalies in sorted(counts))
    return [*said, f"rows stand on different parts of the test set (normal + anomalous images: {parts})"]


def format_comparison(rows: Sequence[Row], digits: int = 3) -> str:
    """Plain text: a block for each radius, the best certified AUROC first."""
    numbers = ["clean", "certified", "95 %", "attacked", "behind, 95 %", "bootstrap", "n", "images"]
    lines = [["L2 radius", "detector", *numbers]]
    before = None
    for row in rows:
        shown = "" if row["radius"] == before else short_text(row["radius"])
        images = f"{row['normals']}+{row['anomalies']}"
        clean, certified, attacked = number_texts(row, digits)
        spread = [interval_text(row["auroc_interval"] or row["auroc_bootstrap"]), attacked, behind_text(row)]
        spread.append(interval_text(row["behind_bootstrap"], 3))
        lines.append([shown, row["label"], clean, certified, *spread, str(row["n"]), images])
        before = row["radius"]
    width = max(len(line[1]) for line in lines)
    text = align([[line[0], line[1].ljust(width), *line[2:]] for line in lines])
    text += "\n95 %: over the choice of test images (DeLong). "
    text += "behind: the best row of the radius minus this one, paired,\nby DeLong and by bootstrap"
    text += "".join(f"\nnote: {note}" for note in notes(rows))
    lines = set_lines(rows, digits)
    return text if len(lines) == 1 else text + "\n\n" + align(lines)


def set_lines(rows: Sequence[Row], digits: int = 3) -> list[list[str]]:
    """A head, and a line for each row and outlier set: what its mean is made of; the head alone without such sets."""
    lines = [["L2 radius", "detector", "outlier set", "clean", "certified", "attacked"]]
    for row in rows:
        for name, values in row.get("sets", {}).items():
            lines.append(
                [short_text(row["radius"]), row["label"], name, *number_texts({**row, **values}, digits)]
            )
    widths = [max(len(line[i]) for line in lines) for i in (1, 2)]
    return [[line[0], line[1].ljust(widths[0]), line[2].ljust(widths[1]), *line[3:]] for line in lines]


def behind_text(row: Row) -> str:
    """By how much a row lies behind the best one, with its interval: `.034 [-.010, .078]`."""
    if row["behind"] is None:
        return MISSING
    value, low, high = row["behind"]
    return f"{value:.3f} [{floor_text(low, 3)}, {ceil_text(high, 3)}]"


def compare_html(
    data: dict[str, Any], rows: Sequence[Row], checked: str, picture: tuple[bytes, bytes]
) -> str:
    """The page: figure, a table of certified and attacked AUROC, what each row rests on."""
    caption = (
        "AUROC with all images attacked. Solid: certified, no attack of this size gets below. Dashed: "
        "reached by our attack. The truth lies between; " + ESTIMATED + ". "
        "Lines guide the eye; only the marks were computed."
    )
    about = (
        "Bold: certified, floored. Below it: attacked. The true robust AUROC lies between the two; "
        f"{ESTIMATED}. All images are attacked, normal and anomalous."
    )
    warnings = "".join(page.paragraph(f"Note: {note}.", "note") for note in notes(rows))
    sections = [
        ("", page.figure(picture, "AUROC against the L2 radius", caption)),
        ("Table", matrix_html(rows) + page.paragraph(about, "note") + warnings),
        *([("By outlier set", page.table(set_lines(rows)))] if len(set_lines(rows)) > 1 else []),
        ("What the rows rest on", _basis(rows)),
        ("Check", page.paragraph(f"{checked.replace('<=', '≤')}.")),
    ]
    subtitle = f"{data['name']} at {data['resolution']} x {data['resolution']} pixels"
    return page.page("Certified and attacked AUROC compared", subtitle, sections)


def _basis(rows: Sequence[Row]) -> str:
    lines = [["detector", "run", "way", "n", "alpha of a cell", "images"]]
    for label in dict.fromkeys(row["label"] for row in rows):
        row = next(r for r in rows if r["label"] == label)
        alpha = "deterministic" if row["alpha"] is None else f"{row['alpha']:.3g}"
        images = f"{row['normals']} + {row['anomalies']}"
        lines.append([label, row["run"], row["smoothing"], str(row["n"]), alpha, images])
    return page.table(lines)
