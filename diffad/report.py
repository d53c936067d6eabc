"""`diffad report RUN`: one HTML page and PNG figures about one run folder.

The page says what was measured, shows the headline figure and the table, and is as clear about what the
numbers do not say. It is refused for a run in which certified <= attacked <= clean does not hold.
"""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Any

from certify.console import say
from certify.files import write_json, write_text
from diffad import page
from diffad.conditions import Run, Subject
from diffad.examples import Examples, read_examples
from diffad.order import OrderReport, check_order
from diffad.plots import Theme, distributions, example_figure, headline, save
from diffad.report_tables import defects_html, rates_html, table_html
from diffad.report_text import how_sure, lead, limits, made, measured, probe
from diffad.results import SUMMARY, read_run, summarize
from diffad.tables import auroc_table, format_table


def report_command(run: Path | str, *, json: bool = False) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder, and print its table (or one JSON object).

    Returns the page's path. Raises `OrderError` before anything is written if the order is violated.
    """
    loaded = read_run(run)
    order = check_order([loaded])
    rows = auroc_table(loaded)
    html = report_html(loaded, order)
    figures = write_figures(loaded)
    path = loaded.folder / "report.html"
    write_text(path, html)
    write_json(loaded.folder / SUMMARY, summarize(loaded))
    if json:
        names = [str(figure) for figure in figures]
        print(jsonlib.dumps({"report": str(path), "figures": names, "order": order.sentence, "auroc": rows}))
    else:
        print(format_table(rows))
        print(order.sentence)
    say(f"report: {path}")
    return path


def write_figures(run: Run) -> list[Path]:
    """Write the figures of a run as PNG files; returns their paths."""
    drawn = {"headline": headline([run])} if _has_curve(run) else {}
    for number, subject in enumerate(_with_clean(run)):
        drawn[f"scores-{number}" if number else "scores"] = distributions(run, subject)
    if examples := _examples(run):
        drawn["examples"] = example_figure(run, examples)
    paths = []
    for name, figure in drawn.items():
        path = run.folder / "figures" / f"{name}.png"
        save(figure, path)
        paths.append(path)
    return paths


def report_html(run: Run, order: OrderReport) -> str:
    """The page of a run whose order has been checked."""
    data, rows = run.manifest["data"], auroc_table(run)
    detectors = ", ".join(dict.fromkeys(subject.detector for subject in run.subjects))
    subtitle = f"{data['name']} at {data['resolution']} x {data['resolution']} pixels · {_when(run)}"
    sections = [
        ("", lead(run, rows)),
        ("What was measured", measured(run, rows)),
        ("Certified and attacked AUROC", _headline(run)),
        ("Table", table_html(rows) + rates_html(rows) + defects_html(run)),
        ("Scores", _scores(run)),
        ("Examples", _example_section(run)),
        ("How sure is this?", how_sure(run, rows, order)),
        ("What this does not say", limits(run)),
        ("Is the test set new to the detector?", probe(data)),
        ("How it was made", made(run)),
    ]
    return page.page(f"How robust is {detectors}?", subtitle, sections)


def _has_curve(run: Run) -> bool:
    return any(c.norm == "l2" for c in run.conditions)


def _with_clean(run: Run) -> list[Subject]:
    return [subject for subject in run.subjects if run.of(subject, "clean")]


def _examples(run: Run) -> Examples | None:
    examples = read_examples(run.folder)
    return examples if examples and run.of(examples.subject, "clean") else None


def _when(run: Run) -> str:
    return str(max(entry["finished"] for entry in run.manifest["commands"]))[:10]


def _headline(run: Run) -> str:
    if not _has_curve(run):
        return page.paragraph("No result in L2 yet: run certify, then diffad attack.", "note")
    caption = (
        "All images are attacked, normal and anomalous. The true robust AUROC lies in the shaded gap. Lines "
        "guide the eye; only the marks were computed."
    )
    return page.figure(lambda theme: headline([run], theme=theme), "AUROC against the L2 radius", caption)


def _scores(run: Run) -> str:
    parts = []
    for subject in _with_clean(run):

        def draw(theme: Theme, subject: Subject = subject) -> Any:
            return distributions(run, subject, theme=theme)

        caption = (
            f"{subject.label}. Left: clean scores. Right: one line an image, the interval that no attack of "
            "this size can leave; a line that runs out of the frame has an extreme bound or none. The "
            "certified AUROC counts how often an anomalous line lies wholly above a normal one."
        )
        parts.append(page.figure(draw, f"Scores of {subject.label}", caption))
    return "".join(parts)


def _example_section(run: Run) -> str:
    examples = _examples(run)
    if examples is None:
        return ""
    caption = (
        "The test images with the lowest, the middle and the highest score of each class, so nobody picked "
        "them. Anomaly maps share one scale."
    )
    return page.figure(
        lambda theme: example_figure(run, examples, theme=theme), "Examples with anomaly maps", caption
    )
