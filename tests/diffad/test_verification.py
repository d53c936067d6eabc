from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from certify.log import image_digest
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from certify.types import FloatArray, ScoreBounds
from diffad.claims import Claim
from diffad.conditions import Subject, TestedImages, certified_conditions
from diffad.plan import Plan
from diffad.runs import Run
from diffad.verification import (
    check_deterministic,
    check_levels,
    check_options,
    different_end,
    first_difference,
)
from diffad.verified_images import different_image, other_normals


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


SUBJECT = Subject("digits:8", 8, "diffusion", "reference", "l2", 1.0)
TESTED = TestedImages(np.array([0, 1]), ("a", "b"), np.array([0, 1]), ("good", "spot"))
KEPT = {
    **{"purpose": "certify", "smoothing": "reference", "sigma": 1.0, "seed": 3, "grid": False},
    **{"batch_size": 250, "images_per_batch": 1, "detector": "d", "data": "t", "purifier": ""},
}


def claimed(purifier: str | None = None) -> tuple[Claim, Run]:
    """One condition of a run, recorded under the options of KEPT."""
    plan = Plan("reference", 1.0, (0.1,), n=100, seed=3)
    bounds = ScoreBounds(np.zeros((1, 2)), np.ones((1, 2)))
    rows = certified_conditions(
        *(SUBJECT, TESTED, bounds, [0.1]), n=100, alpha=plan.level(2), alpha_kind="total", seed=3
    )
    manifest = {"detectors": {"diffusion": "d"}, "data": {"fingerprint": "t"}, "commands": []}
    claim = Claim(SUBJECT, tuple((row, plan) for row in rows), SUBJECT.detector, purifier)
    return claim, Run(Path(), manifest, tuple(rows))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"purpose": "select"}, "purpose is 'select', the run says 'certify'"),
        ({"grid": True}, "grid is True, the run says False"),
        ({"seed": 4}, "seed is 4, the run says 3"),
        ({"batch_size": 500}, "batch_size is 500, the run says 250"),
        ({"purifier": "p"}, "purifier is 'p', the run names none"),
    ],
)
def test_draws_under_other_options_than_the_run_says_fail(
    change: dict[str, Any], problem: str | None, tmp_path: Path
) -> None:
    claim, run = claimed()
    check = check_options(claim, {"certify": ScoreStore(tmp_path, KEPT | change)}, run)
    assert check.status == ("ok" if problem is None else "failed")
    assert problem is None or check.detail == f"draws to certify: {problem}"


def test_draws_of_held_out_normals_are_held_to_the_same_options(tmp_path: Path) -> None:
    claim, run = claimed()
    stores = {
        "certify": ScoreStore(tmp_path / "a", KEPT),
        "calibrate": ScoreStore(tmp_path / "b", KEPT | {"purpose": "calibrate", "sigma": 0.5}),
    }
    assert check_options(claim, stores, run).detail == "draws to calibrate: sigma is 0.5, the run says 1.0"


@pytest.mark.parametrize(
    ("kept", "given", "problem"),
    [
        ("p", "p", None),
        ("p", None, None),  # not at hand: that there was one can be seen, which one it was cannot
        ("", "p", "purifier is '', the run names denoiser"),
        ("p", "q", "purifier is 'p', the one at hand is 'q'"),
    ],
)
def test_the_purifier_is_the_one_at_hand(
    kept: str, given: str | None, problem: str | None, tmp_path: Path
) -> None:
    claim, run = claimed(purifier="denoiser")
    store = ScoreStore(tmp_path, KEPT | {"purifier": kept})
    check = check_options(claim, {"certify": store}, run, purifier=given)
    assert check.status == ("ok" if problem is None else "failed")
    assert problem is None or check.detail == f"draws to certify: {problem}"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"alpha": 0.001, "alpha_kind": "per_image"}, None),
        ({"n": 0}, "rests on 0 draws an image, the way 'reference' under its options on 100"),
        ({"norm": "linf"}, "its norm is 'linf', the bounds hold in 'l2'"),
        ({"alpha": None}, "alpha None, the options give 0.0005"),
        ({"alpha": 0.001}, "alpha 0.001, the options give 0.0005"),
        ({"alpha_kind": "failures"}, "alpha is of kind 'failures', the options give 'total'"),
    ],
)
def test_rows_under_noise_have_the_draws_and_the_level_of_their_options(change, problem) -> None:
    ((row, plan),) = claimed()[0].rows
    check = check_levels(Claim(SUBJECT, ((replace(row, **change), plan),), "diffusion"))
    assert check.status == ("ok" if problem is None else "failed")
    assert problem is None or check.detail.endswith(f": {problem}")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"n": 100}, "rests on 100 draws an image, the way 'none' under its options on 0"),
        ({"alpha": 0.0005}, "alpha 0.0005, the options give None"),
    ],
)
def test_rows_without_noise_have_neither(change, problem) -> None:
    ((row, plan),) = claimed()[0].rows
    subject, plan = SUBJECT._replace(smoothing="none", sigma=None), replace(plan, smoothing="none")
    row = replace(row, **({"subject": subject, "n": 0, "alpha": None} | change))
    check = check_levels(Claim(subject, ((row, plan),), "diffusion"))
    assert check.status == ("ok" if problem is None else "failed")
    assert problem is None or check.detail.endswith(f": {problem}")


class Offset(SmoothedDetector):
    """A detector without noise whose scores are all 10000: it tells nothing apart."""

    def __init__(self) -> None:
        self.lipschitz = 0.0

    def score(self, images: torch.Tensor, indices: Sequence[int], *_: Any) -> FloatArray:
        return np.full(len(indices), 1e4)

    def bounds(self, images: torch.Tensor, indices: Sequence[int], *_: Any) -> ScoreBounds:
        return ScoreBounds.exact(np.full((1, len(indices)), 1e4))


@pytest.mark.parametrize(("shift", "status"), [(0.0, "ok"), (9e-6, "failed"), (9e-5, "failed")])
def test_bounds_without_noise_may_not_be_moved_to_an_auroc(shift: float, status: str) -> None:
    """9e-6 of the score's size is less than two machines may differ by, and here all that the AUROC rests on."""
    ends = 1e4 * (1.0 + shift * np.array([[-1.0, 1.0]]))
    subject, plan = SUBJECT._replace(smoothing="none", sigma=None), Plan("none", None, (0.1,))
    rows = certified_conditions(
        *(subject, TESTED, ScoreBounds.exact(ends), [0.1]), n=0, alpha=None, alpha_kind="total", seed=0
    )
    _, run = claimed()
    claim = Claim(subject, tuple((row, plan) for row in rows), "diffusion")
    check = check_deterministic(claim, Offset(), torch.zeros(2, 1, 2, 2), run)
    assert check.status == status
    assert ("takes auroc" in check.detail) == (shift == 9e-6)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (TESTED, None),
        (
            TestedImages(np.arange(3), ("a", "b", "c"), np.array([0, 1, 1]), ("good", "spot", "spot")),
            "has rows of 3 images, the test set has 2",
        ),
        (
            TestedImages(np.array([0, 2]), ("a", "b"), np.array([0, 1]), ("good", "spot")),
            "place of b stored 2, the data says 1",
        ),
        (
            TestedImages(np.array([0, 1]), ("c", "b"), np.array([0, 1]), ("good", "spot")),
            "name of a stored 'c', the data says 'a'",
        ),
        (
            TestedImages(np.array([0, 1]), ("a", "b"), np.array([1, 0]), ("good", "spot")),
            "label of a stored 1, the data says 0",
        ),
        (
            TestedImages(np.array([0, 1]), ("a", "b"), np.array([0, 1]), ("good", "dent")),
            "defect of b stored 'dent', the data says 'spot'",
        ),
    ],
)
def test_rows_are_those_of_the_whole_test_set(rows: TestedImages, problem: str | None) -> None:
    found = different_image(rows, TESTED)
    assert found is None if problem is None else problem in str(found)


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        ({0: 0, 1: 1, 2: 2}, None),
        ({0: 0, 1: 1}, "of 2 held-out normals, need the first 3: number 2 is missing"),
        ({0: 0, 1: 1, 2: 2, 3: 3}, "of 4 held-out normals, need the first 3: number 3 is none of them"),
        ({0: 0, 1: 1, 2: 3}, "under number 2 are those of another picture"),
    ],
)
def test_a_threshold_rests_on_the_first_held_out_normals_and_no_others(
    places: dict[int, int], problem: str | None, tmp_path: Path
) -> None:
    """`places` has the picture whose draws are kept under each number."""
    normals = torch.arange(4.0)[:, None, None, None].expand(4, 1, 2, 2) / 255
    store = ScoreStore(tmp_path, {})
    for place, picture in places.items():
        digest = image_digest(normals[picture].double().numpy())
        store.put(place, digest, {0: np.zeros(50, np.float32)})
    found = other_normals(store, normals[:3], False)
    assert found is None if problem is None else problem in str(found)
