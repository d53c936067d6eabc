"""Pixel AUROC and PRO against scikit-learn, a count by hand, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import roc_auc_score, roc_curve

from certify.checks import InputError
from diffad.localisation import RankedPixels, count_regions, pixel_auroc, pro, region_shares

CHANCE = 0.15  # of PRO up to 0.3: half of it


def random_case(seed: int, levels: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Maps of few or many distinct values on 6 images of 12 x 10, two of them normal."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((6, 12, 10), dtype=bool)
    for mask in masks[2:]:
        for _ in range(rng.integers(1, 4)):
            top, left = rng.integers(0, 9), rng.integers(0, 7)
            mask[top : top + rng.integers(1, 4), left : left + rng.integers(1, 4)] = True
    return np.round(levels * (rng.random(masks.shape) + 0.3 * masks)) / levels, masks


def counted(maps: np.ndarray, masks: np.ndarray, max_fpr: float) -> float:
    """PRO as the paper has it: one threshold after the other, one region after the other."""
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        shares = []
        for image, mask in zip(found, masks, strict=True):
            regions, count = label(mask, structure=np.ones((3, 3)))
            shares += [image[regions == region].mean() for region in range(1, count + 1)]
        rates.append(found[~masks].mean())
        overlaps.append(np.mean(shares))
    grid = np.linspace(0.0, max_fpr, 100_001)
    return float(np.trapezoid(np.interp(grid, rates, overlaps), grid) / max_fpr)


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_pixel_auroc_is_that_of_scikit_learn(levels) -> None:
    maps, masks = random_case(0, levels)
    assert pixel_auroc(maps, masks) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_pro_is_the_area_under_a_roc_curve_of_weighted_pixels(levels, max_fpr) -> None:
    maps, masks = random_case(1, levels)
    weights = np.where(masks, region_shares(masks), 1.0)
    fpr, rate, _ = roc_curve(
        masks.ravel(), maps.ravel(), sample_weight=weights.ravel(), drop_intermediate=False
    )
    inside = fpr < max_fpr
    fpr, rate = np.append(fpr[inside], max_fpr), np.append(rate[inside], np.interp(max_fpr, fpr, rate))
    assert pro(maps, masks, max_fpr) == pytest.approx(np.trapezoid(rate, fpr) / max_fpr, abs=1e-12)


@pytest.mark.parametrize("levels", [4, 40])
def test_pro_is_what_counting_by_threshold_and_region_gives(levels) -> None:
    """Up to the grid of the count: a steep curve costs it half a step."""
    maps, masks = random_case(2, levels)
    assert pro(maps, masks, 0.3) == pytest.approx(counted(maps, masks, 0.3), abs=1e-5)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    """One region of 12 pixels is found first, one of 1 pixel never before the normals: PRO 1/2, pixels 12/13."""
    masks = np.zeros((2, 8, 8), dtype=bool)
    masks[0, :3, :4] = masks[1, 5, 5] = True
    maps = np.where(masks, 2.0, 1.0)
    maps[1, 5, 5] = 0.0
    assert pro(maps, masks) == pytest.approx(1 / 2)
    assert pixel_auroc(maps, masks) == pytest.approx(12 / 13)


def test_pro_in_closed_form() -> None:
    """Half of the only region is found at once, the rest after a tenth of the normal pixels: (1/2 .1 + .2) / .3."""
    mask = np.zeros((1, 1, 104), dtype=bool)
    mask[0, 0, :4] = True
    maps = np.arange(104.0, 0.0, -1.0).reshape(1, 1, 104)
    maps[0, 0, :4] = [
        200.0,
        200.0,
        94.5 - 4,
        94.5 - 4,
    ]  # below ten of the 100 normal pixels, which have 1 to 100
    assert pro(maps, mask) == pytest.approx((0.5 * 0.1 + 0.2) / 0.3)
    assert pixel_auroc(maps, mask) == pytest.approx(0.5 + 0.5 * 0.9)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, [0, 1], [0, 1]] = True
    masks[1, [0, 2], [0, 2]] = True
    shares = region_shares(masks)
    assert count_regions(masks) == 3
    assert shares[0, 0, 0] == shares[0, 1, 1] == 0.5
    assert shares[1, 0, 0] == shares[1, 2, 2] == 1.0
    assert shares.sum() == 3.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), levels=st.sampled_from([2, 5, 1000]), max_fpr=st.floats(0.01, 1.0))
def test_they_are_rates_that_depend_on_ranks_alone(seed, levels, max_fpr) -> None:
    maps, masks = random_case(seed, levels)
    ranked, stretched = RankedPixels(maps, masks), RankedPixels(np.exp(3 * maps) - 7, masks)
    assert 0.0 <= ranked.pro(max_fpr) <= 1.0
    assert 0.0 <= ranked.pixel_auroc() <= 1.0
    assert stretched.pro(max_fpr) == ranked.pro(max_fpr)
    assert stretched.pixel_auroc() == ranked.pixel_auroc()
    assert RankedPixels(-maps, masks).pixel_auroc() == pytest.approx(1 - ranked.pixel_auroc(), abs=1e-12)
    assert RankedPixels(-maps, masks).pro(1.0) == pytest.approx(1 - ranked.pro(1.0), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_raising_defects_and_lowering_the_rest_never_lowers_them(seed) -> None:
    maps, masks = random_case(seed, 20)
    step = np.random.default_rng(seed).random(maps.shape)
    better = maps + np.where(masks, step, -step)
    assert pixel_auroc(better, masks) >= pixel_auroc(maps, masks) - 1e-12
    assert pro(better, masks) >= pro(maps, masks) - 1e-12


def test_a_perfect_a_constant_and_an_inverted_map() -> None:
    _, masks = random_case(3)
    assert (pixel_auroc(masks.astype(float), masks), pro(masks.astype(float), masks)) == (1.0, 1.0)
    constant = np.full(masks.shape, 7.0)
    assert pixel_auroc(constant, masks) == pytest.approx(0.5)
    assert pro(constant, masks) == pytest.approx(CHANCE)
    assert (pixel_auroc(1.0 - masks, masks), pro(1.0 - masks, masks)) == (0.0, 0.0)


def test_a_resample_is_the_set_with_its_images_repeated() -> None:
    maps, masks = random_case(4, 50)
    counts = [2, 0, 1, 3, 0, 1]
    ranked = RankedPixels(maps, masks)
    drawn = np.repeat(np.arange(6), counts)
    assert ranked.pro(0.3, counts) == pytest.approx(pro(maps[drawn], masks[drawn]), abs=1e-12)
    assert ranked.pixel_auroc(counts) == pytest.approx(pixel_auroc(maps[drawn], masks[drawn]), abs=1e-12)
    assert ranked.pro(0.3, np.ones(6)) == ranked.pro(0.3)


@pytest.mark.parametrize("levels", [5, 100_000])
def test_many_resamples_at_once_are_those_of_each(levels, monkeypatch) -> None:
    """With as many parts as pixels exactly; with 64 parts of the 720 pixels up to the error that is stated."""
    maps, masks = random_case(6, levels)
    counts = np.random.default_rng(0).integers(0, 3, (20, 6)) + 1
    ranked = RankedPixels(maps, masks)
    each = np.array([[ranked.pixel_auroc(one), ranked.pro(0.3, one)] for one in counts])
    np.testing.assert_allclose(ranked.resampled(counts), each, atol=1e-12)
    monkeypatch.setattr("diffad.localisation.BINS", 64)
    found = ranked.resampled(counts)
    largest = 3 * (720 / 64 + np.unique(maps, return_counts=True)[1].max()) / (~masks).sum()
    assert (np.abs(found - each) <= 0.5 * largest / np.array([1.0, 0.3])).all()
    with pytest.raises(InputError, match="counts"):
        ranked.resampled(counts[0])
    with pytest.raises(InputError, match="leave no defective"):
        ranked.resampled([[1, 1, 0, 0, 0, 0]])


def test_what_cannot_be_ranked_is_refused() -> None:
    maps, masks = random_case(5)
    cases = [
        ((maps[0], masks[0]), "need both"),
        ((maps, masks[:2]), "need both"),
        ((np.where(maps > 0.5, np.nan, maps), masks), "finite"),
        ((maps.astype(int), masks), "finite floating-point"),
        ((maps, masks.astype(float)), "need bool"),
        ((maps, np.zeros_like(masks)), "no defective"),
        ((maps, np.ones_like(masks)), "only defective"),
    ]
    for arguments, words in cases:
        with pytest.raises(InputError, match=words):
            RankedPixels(*arguments)
    ranked = RankedPixels(maps, masks)
    for rate in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(InputError, match="max_fpr"):
            ranked.pro(rate)
    for counts in ([1, 1], [1, 1, 1, 1, 1, -1], [1, 1, 1, 1, 1, np.nan]):
        with pytest.raises(InputError, match="counts"):
            ranked.pro(0.3, counts)
    with pytest.raises(InputError, match="leave no defective"):
        ranked.pixel_auroc([1, 1, 0, 0, 0, 0])
