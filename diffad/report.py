"""`diffad report RUN`: one HTML page and PNG figures about one run folder.

The page says what was measured, shows the headline figure and the table, and is as clear about what the
numbers do not say. It is refused for a run in which certified <= attacked <= clean does not hold.
"""

from __future__ import annotations

import json as jsonlib
from functools import partial
from pathlib import Path
from typing import Any

from certify.console import say
from certify.files import write_bytes, write_json, write_text
from diffad import page
from diffad.checks_table import checks_html
from diffad.compare import compare_table
from diffad.conditions import Subject
from diffad.examples import read_examples
from diffad.how_sure import how_sure
from diffad.metric_rows import Row, auroc_table
from diffad.order import OrderReport, check_order
from diffad.plots import Theme, both_themes, distributions, example_figure, headline
from diffad.report_tables import defects_html, matrix_html, rates_html, table_html
from diffad.report_text import lead, limits, made, measured, probe
from diffad.results import SUMMARY, read_run, summarize
from diffad.runs import Run
from diffad.tables import ESTIMATED, format_table

Figures = dict[str, tuple[bytes, bytes]]
FIGURES = "figures"


def report_command(run: Path | str, *, json: bool = False) -> Path:
    """Write `report.html` and `figures/*.png` into a run folder, and print its table (or one JSON object).

    Returns the page's path. Raises `OrderError` before anything is written if the order is violated.
    """
    loaded = read_run(run)
    order = check_order([loaded])
    rows = auroc_table(loaded)
    figures = draw_figures(loaded)
    for name, (light, _) in figures.items():
        write_bytes(loaded.folder / FIGURES / f"{name}.png", light)
    path = loaded.folder / "report.html"
    write_text(path, report_html(loaded, order, figures))
    write_json(loaded.folder / SUMMARY, summarize(loaded))
    if json:
        names = [str(loaded.folder / FIGURES / f"{name}.png") for name in figures]
        print(jsonlib.dumps({"report": str(path), "figures": names, "order": order.sentence, "auroc": rows}))
    else:
        print(format_table(rows))
        print(order.sentence)
    say(f"report: {path}")
    return path


def draw_figures(run: Run) -> Figures:
    """The figures of a run by name, each as PNG files in the light and in the dark theme."""
    figures: Figures = {}
    if any(condition.norm == "l2" for condition in run.conditions):
        figures["headline"] = both_themes(lambda theme: headline([run], theme=theme))
    for subject, name in _score_figures(run).items():
        figures[name] = both_themes(partial(_distributions, run, subject))
    examples = read_examples(run.folder)
    if examples is not None and run.of(examples.subject, "clean"):
        figures["examples"] = both_themes(lambda theme: example_figure(run, examples, theme=theme))
    return figures


def _score_figures(run: Run) -> dict[Subject, str]:
    """A figure's name for each main subject with clean scores."""
    subjects = [subject for subject in run.main if run.of(subject, "clean")]
    return {subject: f"scores-{i + 1}" if i else "scores" for i, subject in enumerate(subjects)}


def _distributions(run: Run, subject: Subject, theme: Theme) -> Any:
    return distributions(run, subject, theme=theme)


def report_html(run: Run, order: OrderReport, figures: Figures) -> str:
    """The page of a run whose order has been checked, with figures from `draw_figures`."""
    data, rows = run.manifest["data"], auroc_table(run)
    detectors = ", ".join(dict.fromkeys(subject.detector for subject in run.main))
    subtitle = f"{data['name']} at {data['resolution']} x {data['resolution']} pixels · {_when(run)}"
    sections = [
        ("", lead(run, rows)),
        ("What was measured", measured(run, rows)),
        ("Certified and attacked AUROC", _headline(figures)),
        ("Table", _tables(run, rows)),
        ("Scores", _scores(run, figures)),
        ("Examples", _examples(figures)),
        ("How sure is this?", how_sure(run, rows, order)),
        ("Were the attacks any good?", checks_html(run)),
        ("What this does not say", limits(run)),
        ("Is the test set new to the detector?", probe(data)),
        ("How it was made", made(run)),
    ]
    return page.page(f"How robust is {detectors}?", subtitle, sections)


def _tables(run: Run, rows: list[Row]) -> str:
    """All subjects against the radius where there are several, then the main ones in full, the rest folded."""
    parts = [] if len(run.subjects) < 2 else [matrix_html(compare_table([run]))]
    parts += [table_html(rows, run.main), rates_html(rows, run.main), defects_html(run)]
    if beside := [subject for subject in run.subjects if subject not in run.main]:
        parts.append(page.folded("Tables of the rows without a network", table_html(rows, beside)))
    return "".join(parts)


def _when(run: Run) -> str:
    return str(max(entry["finished"] for entry in run.manifest["commands"]))[:10]


def _headline(figures: Figures) -> str:
    if "headline" not in figures:
        return page.paragraph("No result in L2 yet: run certify, then diffad attack.", "note")
    caption = (
        "All images are attacked, normal and anomalous. The true robust AUROC lies in the shaded gap; "
        f"{ESTIMATED}. Lines guide the eye; only the marks were computed."
    )
    return page.figure(figures["headline"], "AUROC against the L2 radius", caption)


def _scores(run: Run, figures: Figures) -> str:
    parts = []
    for subject, name in _score_figures(run).items():
        caption = (
            f"{subject.label}. Left: clean scores. Right: one line an image, the interval that no attack of "
            "this size can leave; a line that runs out of the frame has an extreme bound or none. The "
            "certified AUROC counts how often an anomalous line lies wholly above a normal one."
        )
        parts.append(page.figure(figures[name], f"Scores of {subject.label}", caption))
    return "".join(parts)


def _examples(figures: Figures) -> str:
    if "examples" not in figures:
        return ""
    caption = (
        "The test images with the lowest, the middle and the highest score of each class, so nobody picked "
        "them. Anomaly maps share one scale."
    )
    return page.figure(figures["examples"], "Examples with anomaly maps", caption)
