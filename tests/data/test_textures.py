from __future__ import annotations

import numpy as np
import pytest

from certify.checks import InputError
from diffad.data.textures import FAMILIES, render


@pytest.mark.parametrize("family", FAMILIES)
def test_images_fill_the_range_and_differ_by_seed(family):
    first, again, other = (render(family, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == (32, 32)
    assert first.dtype == np.float64
    assert first.min() >= 0
    assert first.max() <= 1
    assert first.std() > 0.08
    assert np.array_equal(first, again)
    assert np.linalg.norm(first - other) > 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_larger_image_shows_the_same_scene(family):
    small, large = (render(family, np.random.default_rng(3), size) for size in (32, 64))
    halved = large.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.9


def test_unknown_family_lists_the_known():
    with pytest.raises(InputError, match="got 'tweed', allowed are grid, stripes"):
        render("tweed", np.random.default_rng(0))
