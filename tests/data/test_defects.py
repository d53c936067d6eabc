from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from certify.checks import InputError
from diffad.data.defects import INDUSTRIAL, KINDS, SHAPE, SURFACE, SURFACE_TEST, plant
from diffad.data.textures import render

STYLES = {"surface": SURFACE, "surface_test": SURFACE_TEST, "shape": SHAPE, "industrial": INDUSTRIAL}


def pair(channels: int = 1, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    images = [render("grid", np.random.default_rng(seed), size) for seed in (1, 2)]
    return tuple(np.repeat(image[None], channels, axis=0) for image in images)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(8))
def test_size_mask_and_range(style, seed):
    clean, donor = pair()
    planted = plant(clean, donor, np.random.default_rng(seed), STYLES[style], first=seed)
    low, _, high = STYLES[style].norm_range(clean)
    change = planted.image - clean
    assert planted.l2 == pytest.approx(np.linalg.norm(change))
    assert low <= planted.l2 <= high
    assert 0 <= planted.image.min() <= planted.image.max() <= 1
    assert planted.mask.any()
    # the mask holds most of what changed
    assert (change[:, planted.mask] ** 2).sum() > 0.6 * (change**2).sum()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_planted_in_colour(kind):
    clean, donor = pair(channels=3)
    style = replace(SURFACE if kind in SURFACE.kinds else SHAPE, kinds=(kind,))
    planted = plant(clean, donor, np.random.default_rng(5), style)
    assert planted.kind == kind
    assert planted.image.shape == (3, 32, 32)


def test_same_seed_same_defect():
    clean, donor = pair()
    first, again, other = (plant(clean, donor, np.random.default_rng(s), SURFACE) for s in (1, 1, 2))
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)


def test_norms_grow_with_the_side_and_the_channels():
    assert np.allclose(SURFACE.norm_range(np.zeros((3, 64, 64))), np.array(SURFACE.norms) * 2 * np.sqrt(3))


def test_shape_norms_follow_the_contrast():
    clean, _ = pair()
    pale = 0.5 + 0.5 * (clean - 0.5)
    assert np.allclose(2 * np.array(SHAPE.norm_range(pale)), SHAPE.norm_range(clean))


def test_levels_are_those_of_the_file():
    clean, donor = (np.round(image * 255) / 255 for image in pair())
    codes = plant(clean, donor, np.random.default_rng(0), SURFACE, levels=255).image * 255
    assert np.allclose(codes, codes.round())


def test_an_impossible_size_is_refused():
    blank = np.full((1, 32, 32), 0.5)
    with pytest.raises(InputError, match=r"no paste of L2 norm .* is the image blank\?$"):
        plant(blank, blank, np.random.default_rng(0), replace(SURFACE, kinds=("paste",)))


def test_a_smooth_surface_takes_defects_of_surfaces_and_the_refusal_says_so():
    rng = np.random.default_rng(0)
    clean, donor = (0.5 + 0.008 * rng.standard_normal((1, 16, 16)) for _ in range(2))
    with pytest.raises(InputError, match=r"is the image blank\? Surfaces, .* are given as mvtec:FOLDER$"):
        plant(clean, donor, rng, SHAPE)
    assert plant(clean, donor, rng, INDUSTRIAL).mask.any()
