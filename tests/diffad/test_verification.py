from __future__ import annotations

import numpy as np
import pytest

from certify.types import ScoreBounds
from diffad.conditions import Subject, TestedImages, certified_conditions
from diffad.verification import different_end, first_difference


@pytest.mark.parametrize(
    ("stored", "derived", "where"),
    [
        ({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2.0}]}, None),
        ({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 3.0}]}, "a[1].b: stored 2.0, derived 3.0"),
        ({"a": 1}, {"a": 1, "b": 2}, "b is missing"),
        ({"a": 1, "c": 2}, {"a": 1}, "c is not in the derived tables"),
        ([1, 2], [1], " has 2 entries, 1 derived"),
        ({"a": {"b": None}}, {"a": {"b": 0.0}}, "a.b: stored None, derived 0.0"),
    ],
)
def test_the_first_difference_is_named_with_both_values(stored, derived, where) -> None:
    assert first_difference(stored, derived) == where


def test_infinite_ends_are_compared_as_they_are() -> None:
    images = TestedImages(np.array([0, 1]), ("a", "b"), np.array([0, 1]), ("good", "spot"))
    bounds = ScoreBounds(np.array([[-np.inf, 1.0]]), np.array([[2.0, np.inf]]))
    (condition,) = certified_conditions(
        Subject("digits:8", 8, "diffusion", "reference", "l2", 1.0),
        *(images, bounds, [0.1]),
        n=100,
        alpha=1e-3,
        alpha_kind="total",
        seed=0,
    )
    assert different_end(condition, (bounds.lower[0], bounds.upper[0])) is None
    moved = different_end(condition, (bounds.lower[0], np.array([2.0, 5.0])))
    assert moved is not None
    assert moved.endswith("b: upper end stored inf, derived 5.0")
    assert different_end(condition, (np.array([-np.inf, 1.0 + 1e-12]), bounds.upper[0])) is not None
    assert different_end(condition, (np.array([-np.inf, 1.0 + 1e-12]), bounds.upper[0]), 1e-5) is None
