from __future__ import annotations

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.conditions import Subject, TestedImages, certified_conditions, clean_condition
from diffad.metric_rows import auroc_table
from diffad.rates_table import format_rates
from diffad.runs import Run

SUBJECT = Subject("digits:8", 8, "diffusion", "reference", "l2", 0.5)
IMAGES = TestedImages(
    np.arange(6), tuple("abcdef"), np.array([0, 0, 0, 1, 1, 1]), ("good",) * 3 + ("dot",) * 3
)
COMMAND = {"threshold": "conformal", "quantile": 0.9, "alpha_per_image": 0.001, "threshold_radius": 0.1}


@pytest.fixture
def run(tmp_path):
    scores = np.array([0.0, 1.0, 2.2, 1.8, 3.0, 4.0])
    bounds = ScoreBounds(np.stack([scores, scores - 1.1]), np.stack([scores, scores + 1.1]))
    shared = {"n": 100, "seed": 0, "threshold": 2.0}
    rows = certified_conditions(
        SUBJECT, IMAGES, bounds, [0.0, 0.1], alpha=0.001, alpha_kind="total", **shared
    )
    manifest = {"data": {}, "commands": [{"command": "certify", "config": COMMAND}]}
    return Run(tmp_path, manifest, (clean_condition(SUBJECT, IMAGES, scores, **shared), *rows))


def test_tpr_is_floored_and_fpr_ceiled_and_the_rule_is_named(run) -> None:
    lines = format_rates(auroc_table(run)).splitlines()
    assert lines[0] == (
        "rates at the calibrated threshold; conformal: further normals are flagged at a rate of at most "
        "0.1 + 0.001 under L2 attacks up to 0.1, on average over calibration sets, by the true score"
    )
    first, second = (line.split() for line in lines[4:])
    # 2 of 3 anomalies above 2, 1 of 3 normals; after 1.1 only the last anomaly, and the normals at 2.1 and 3.3
    assert [word for word in first if word.count(".") == 1 and "[" not in word and "]" not in word][-4:] == [
        *("0.667", "0.666", "0.333", "0.334")
    ]
    assert second[:3] == ["0.1", "0.667", "0.333"]
    assert second[6] == "0.667"


def test_every_side_is_in_the_rows_that_the_columns_stand_for(run) -> None:
    rows = {(row["radius"], row["side"]): row for row in auroc_table(run) if row["condition"] == "certified"}
    both, at_zero = rows[0.1, "both"], rows[0.0, "both"]
    assert (rows[0.1, "in"]["tpr"], rows[0.1, "in"]["fpr"]) == (at_zero["tpr"], both["fpr"])
    assert (rows[0.1, "out"]["tpr"], rows[0.1, "out"]["fpr"]) == (both["tpr"], at_zero["fpr"])


def test_runs_without_a_threshold_or_without_a_rule(run) -> None:
    bare = Run(run.folder, {"data": {}, "commands": []}, run.conditions)
    table = auroc_table(bare)
    assert all("threshold_rule" not in row for row in table)
    assert format_rates(table).splitlines()[0] == "rates at the calibrated threshold"
    assert format_rates([{**row, "threshold": None} for row in table]) == ""
