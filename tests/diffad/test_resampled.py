"""The bootstrap beside DeLong: the library's, in rows, tables and comparisons, and absent where it is no evidence."""

from __future__ import annotations

import numpy as np
import pytest

from certify.metrics import auroc
from certify.uncertainty import bootstrap_interval, bootstrap_test
from diffad import resampled
from diffad.compare import compare_table, format_comparison
from diffad.conditions import Subject, TestedImages, clean_condition
from diffad.metric_rows import auroc_table
from diffad.report_tables import two_intervals
from diffad.tables import find, format_table, interval_text


@pytest.fixture
def runs(tmp_path, synthetic):
    return [
        synthetic.run(tmp_path / "diffusion", detector="diffusion", smoothing="reference"),
        synthetic.run(tmp_path / "pixel_nn", slope=0.5),
    ]


def test_rows_that_tables_print_have_the_interval_of_the_library(runs) -> None:
    rows = auroc_table(runs[0])
    row = find(rows, condition="certified", radius=0.1, side="both")
    (condition,) = (c for c in runs[0].conditions if c.condition == "certified" and c.radius == 0.1)
    expected = bootstrap_interval(auroc, condition.bounds, condition.images.labels, seed=0)
    assert row["auroc_bootstrap"] == [expected.low, expected.high]
    filled = {(row["condition"], row["side"]) for row in rows if row["auroc_bootstrap"] is not None}
    assert filled == {("clean", "clean"), ("certified", "both")}
    assert find(rows, condition="certified", radius=0.1, side="in")["auroc_bootstrap"] is None


def test_the_table_shows_it_beside_delong(runs) -> None:
    rows = auroc_table(runs[0])
    text = format_table(rows)
    header = next(line for line in text.splitlines() if line.startswith("l2 radius"))
    assert header.index("both, 95 %") < header.index("bootstrap") < header.index("infinite")
    row = find(rows, condition="certified", radius=0.1, side="both")
    line = next(line for line in text.splitlines() if line.startswith("0.1 "))
    assert f"{interval_text(row['auroc_interval'])}  {interval_text(row['auroc_bootstrap'])}" in line
    assert "by DeLong and by bootstrap" in text
    assert two_intervals(row).splitlines() == [
        interval_text(row["auroc_interval"]),
        interval_text(row["auroc_bootstrap"]),
    ]
    assert two_intervals(None) == "-"


def test_detectors_are_compared_on_the_same_resamples(runs) -> None:
    rows = compare_table(runs)
    worse = next(row for row in rows if row["radius"] == 0.25 and row["behind"] is not None)
    first, other = (
        next(c for c in run.conditions if c.condition == "certified" and c.radius == 0.25)
        for run in runs[::-1]
    )
    expected = bootstrap_test(auroc, first.bounds, other.bounds, first.images.labels, seed=0)
    assert worse["behind_bootstrap"] == [expected.low, expected.high]
    assert worse["behind_bootstrap"][0] <= worse["behind"][0] <= worse["behind_bootstrap"][1]
    assert interval_text(worse["behind_bootstrap"], 3) in format_comparison(rows)
    best = next(row for row in rows if row["radius"] == 0.25)
    assert best["behind_bootstrap"] is None


def condition(scores: list[float], labels: list[int]):
    images = TestedImages(
        np.arange(len(labels)), tuple(map(str, labels)), np.array(labels), ("good",) * len(labels)
    )
    subject = Subject("digits:8", 8, "pixel_nn", "none", "", None)
    return clean_condition(subject, images, np.array(scores), n=0, seed=0)


def test_what_is_no_evidence_or_too_dear_is_left_out(monkeypatch) -> None:
    perfect = condition([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1])
    assert resampled.resampled_interval(perfect, "clean", None) is None
    assert resampled.resampled_difference(perfect, perfect) is None
    assert resampled.resampled_interval(condition([0.0, 1.0, 0.5], [0, 0, 1]), "clean", None) is None
    mixed = condition([0.0, 2.5, 2.0, 3.0], [0, 0, 1, 1])
    assert isinstance(resampled.resampled_interval(mixed, "clean", None), list)
    monkeypatch.setattr(resampled, "MOST_PAIRS", 3)
    assert resampled.resampled_interval(mixed, "clean", None) is None
