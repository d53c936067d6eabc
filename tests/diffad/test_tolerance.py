from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.claims import Claim
from diffad.conditions import Subject, TestedImages, certified_conditions, clean_condition
from diffad.plan import Plan
from diffad.runs import Run
from diffad.tolerance import TOLERANCE, agreement, relative_gap, what_it_moves

PLAN = Plan("input", 0.5, (0.1,), n=100)
SUBJECT = Subject("digits:8", 8, "toy", "input", "", 0.5)
TESTED = TestedImages(np.arange(4), tuple("abcd"), np.array([0, 0, 1, 1]), ("good",) * 2 + ("spot",) * 2)


def claimed(scores: list[float], threshold: float | None = None, half: float = 0.0) -> tuple[Claim, Run]:
    """A certificate whose bounds lie `half` around the scores of two normals and two anomalies."""
    values = np.array(scores)
    bounds = ScoreBounds((values - half)[None], (values + half)[None])
    level = PLAN.level(4)
    rows = [
        clean_condition(SUBJECT, TESTED, values, n=100, seed=0, threshold=threshold),
        *certified_conditions(
            *(SUBJECT, TESTED, bounds, [0.1]),
            n=100,
            alpha=level,
            alpha_kind="total",
            seed=0,
            threshold=threshold,
        ),
    ]
    manifest = {"detectors": {"toy": "t"}, "data": {"fingerprint": "d", "options": {}}, "commands": []}
    claim = Claim(SUBJECT, tuple((row, PLAN) for row in rows), "toy")
    return claim, Run(Path(), manifest, tuple(rows))


def test_a_gap_is_relative_and_knows_equal_infinite_and_missing_scores() -> None:
    stored, again = [1.0, 0.0, np.inf, np.nan, -2.0, 0.0], [1.001, 0.0, np.inf, np.nan, -2.0, 1e-300]
    assert relative_gap(stored, again) == pytest.approx([1e-3, 0.0, 0.0, 0.0, 0.0, np.inf])
    assert relative_gap([np.inf, np.nan, 1.0, -np.inf], [1.0, 1.0, np.nan, np.inf]).tolist() == [np.inf] * 4
    assert relative_gap(1e-9, 2e-9, reach=1.0) == pytest.approx(1e-9)  # a bound near 0 of a score near 1


def test_a_gap_says_nothing_of_a_score_with_room_between_the_classes() -> None:
    assert what_it_moves(TOLERANCE, *claimed([1.0, 1.2, 2.0, 2.2], threshold=1.5, half=0.1), 0.0) is None


def test_the_same_gap_makes_the_whole_auroc_of_a_score_far_from_zero() -> None:
    """Normals and anomalies alike, and moved apart by less than the tolerance."""
    forged = claimed([1e4 * (1 - 9e-6)] * 2 + [1e4 * (1 + 9e-6)] * 2)
    moves = what_it_moves(9e-6, *forged, 0.0)
    assert moves is not None
    assert "takes auroc (clean, clean, radius 0) from 1.000 to" in moves
    assert what_it_moves(0.0, *forged, 0.0) is None  # nothing differs, so nothing was moved
    assert what_it_moves(1e-7, *forged, 0.0) is None  # rounding: less than what lies between them


@pytest.mark.parametrize(("side", "metric"), [(1.0, "fpr"), (-1.0, "tpr")])
def test_a_threshold_may_lie_on_the_wrong_side_by_rounding(side: float, metric: str) -> None:
    """The nearest normal is just not flagged, or the nearest anomaly just so."""
    near = 1.2 if metric == "fpr" else 2.0
    moves = what_it_moves(1e-6, *claimed([1.0, 1.2, 2.0, 2.2], threshold=near + side * 1e-6), 0.0)
    assert moves is not None
    assert f"takes {metric} " in moves


def test_a_bound_moves_with_the_score_behind_it() -> None:
    """Ends near 0 of scores near 10, at L r = 10: their own size would tell of no rounding at all."""
    claim, run = claimed([-1e-7, -1e-7, 1e-7, 1e-7])
    certified = Claim(claim.subject, claim.rows[1:], claim.entry)
    assert what_it_moves(1e-7, certified, run, 0.0) is None
    moves = what_it_moves(1e-7, certified, run, 100.0)
    assert moves is not None
    assert "certified" in moves


def test_infinite_ends_stay() -> None:
    claim, run = claimed([1.0, 1.2, 2.0, 2.2])
    (clean, plan), (row, _) = claim.rows
    ends = ScoreBounds(np.array([-np.inf, 1.0, 1.0, -np.inf]), np.array([2.0, np.inf, np.inf, 3.0]))
    infinite = Claim(claim.subject, ((clean, plan), (replace(row, bounds=ends), plan)), claim.entry)
    assert what_it_moves(TOLERANCE, infinite, run, 1.0) is None


def test_agreement_says_what_was_found() -> None:
    assert agreement(0.0) == "equal bit for bit"
    assert agreement(3e-7) == "equal within 3e-07 relative, not bit for bit, which moves no metric by 0.001"
