from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from certify.checks import InputError
from certify.types import SIDES, ScoreBounds


def test_bounds_are_float64_with_an_axis_of_radii_at_will() -> None:
    one = ScoreBounds(np.array([0.0, 1.0]), np.array([1, np.inf]))
    assert one.lower.dtype == one.upper.dtype == np.float64
    assert len(one) == 2
    many = ScoreBounds(np.zeros((3, 2)), np.ones((3, 2)) * [[1], [2], [3]])
    assert len(many) == 2
    assert many.at(1).upper.tolist() == [2, 2]
    with pytest.raises(InputError, match="no leading axis"):
        one.at(0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.lower = one.upper  # type: ignore[misc]


def test_known_scores_are_the_case_of_equal_ends() -> None:
    for scores in ([0.5, -1.0], np.array([0.5, -1.0]), torch.tensor([0.5, -1.0], requires_grad=True)):
        exact = ScoreBounds.exact(scores)
        assert exact.lower.tolist() == exact.upper.tolist() == [0.5, -1.0]


@pytest.mark.parametrize(
    ("lower", "upper", "message"),
    [
        ([0.0], [1.0, 2.0], "got shapes"),
        ([], [], "need two equal ones"),
        (0.0, 1.0, "need two equal ones"),
        ([[[0.0]]], [[[1.0]]], "got shapes"),
        ([np.nan], [1.0], "unknown end is -inf"),
        ([0.0, 2.0], [1.0, 1.0], r"lower 2.0 is above upper 1.0 at \(1,\)"),
    ],
)
def test_what_is_no_interval_is_refused(lower, upper, message) -> None:
    with pytest.raises(InputError, match=message):
        ScoreBounds(np.asarray(lower), np.asarray(upper))


def test_sides() -> None:
    assert SIDES == ("clean", "in", "out", "both")
