from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from certify.checks import InputError
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from diffad.conditions import TestedImages
from diffad.plan import Plan
from diffad.stored import StoredDraws, derive, stored_draws

IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
LABELS = np.array([0, 0, 0, 1, 1, 1])
TESTED = TestedImages(np.arange(6), tuple("abcdef"), LABELS, ("good",) * 3 + ("spot",) * 3)
PLAN = Plan("input", 0.5, (0.1, 0.2), n=200, alpha=0.06, batch_size=50)


def smoothed() -> SmoothedDetector:
    return SmoothedDetector(lambda images: images.flatten(1).sum(1), 0.5, "input", n=200, batch_size=50)


@pytest.fixture
def store(tmp_path: Path) -> ScoreStore:
    """200 draws of six images, in a store that is opened again."""
    detector = smoothed()
    config = {**detector.sampling_config(), "detector": "sum"}
    detector.noisy_scores(IMAGES, range(6), store=ScoreStore(tmp_path, config))
    return ScoreStore(tmp_path, config)


def test_stored_draws_are_those_drawn(store) -> None:
    drawn = smoothed().noisy_scores(IMAGES, range(6))
    np.testing.assert_array_equal(stored_draws(store, range(6), 150), drawn[:, :150])
    np.testing.assert_array_equal(stored_draws(store, [4, 1], 200), drawn[[4, 1]])


def test_draws_that_are_not_there_are_named_and_never_made(store) -> None:
    with pytest.raises(InputError, match="holds 200 draws of image 0, its rows rest on 201"):
        stored_draws(store, range(6), 201)
    source = StoredDraws(store, [2, 9])
    with pytest.raises(InputError, match="holds 0 draws of image 9"):
        source.extend({1: 1})


@pytest.mark.parametrize("level", [0.01, 0.001])
def test_bounds_are_those_of_the_smoothed_detector(level, store) -> None:
    found = derive(store, TESTED, PLAN, 0.0)
    assert set(found.certified) == {(r, a) for r in (0.0, 0.1, 0.2) for a in (0.01, 0.001)}
    bounds = smoothed().bounds(IMAGES, range(6), [0.0, 0.1, 0.2], level)
    for row, radius in enumerate((0.0, 0.1, 0.2)):
        lower, upper = found.certified[radius, level]
        np.testing.assert_array_equal(lower, bounds.lower[row])
        np.testing.assert_array_equal(upper, bounds.upper[row])
    np.testing.assert_array_equal(found.clean, smoothed().score(IMAGES, range(6), "certify"))


def test_adaptive_bounds_are_derived_from_as_many_draws_as_were_needed(store) -> None:
    found = derive(store, TESTED, replace(PLAN, adaptive=True, tolerance=0.5), 0.0)
    lower, upper = found.certified[0.1, 0.01]
    assert np.isfinite(lower[LABELS == 1]).all()
    assert np.isfinite(upper[LABELS == 0]).all()
    with pytest.raises(InputError, match="its rows rest on"):
        derive(store, TESTED, replace(PLAN, adaptive=True, n=400, tolerance=0.0), 0.0)
