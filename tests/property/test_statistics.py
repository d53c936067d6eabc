"""Properties of bands, confidences, thresholds and test-set intervals on generated inputs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from certify.bands import band_bounds, mean_bounds
from certify.certificate import certify_scores
from certify.confidence import CONFIDENCE_METHODS, auroc_confidence, tpr_fpr_confidence
from certify.conformal import robust_conformal_threshold
from certify.metrics import auroc, tpr_fpr_at_threshold
from certify.one_draw import one_draw_auroc, one_draw_rates
from certify.types import ScoreBounds
from certify.uncertainty import delong_interval, delong_test, placement_values

ends = st.sampled_from([-np.inf, -2.0, -1.0, 0.0, 1.0, 2.0, np.inf])
scores = arrays(np.float64, 16, elements=st.integers(-4, 4).map(float))
draws = arrays(np.float64, (6, 80), elements=st.one_of(st.integers(-5, 5).map(float), st.just(np.nan)))
radii = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4).map(sorted)
levels = st.sampled_from([0.3, 0.05, 0.001])
constants = st.sampled_from([0.0, 1.0])
LABELS = np.r_[np.ones(7, int), np.zeros(9, int)]
quick = settings(max_examples=60, deadline=None)


@quick
@given(draws, radii, levels, constants, st.sampled_from([0.2, 0.5, 0.9]))
def test_bands_lie_outside_exact_bounds_and_widen(z, r, alpha: float, lipschitz: float, p: float) -> None:
    band, exact = (f(z, 0.5, r, alpha, lipschitz, p) for f in (band_bounds, certify_scores))
    assert (band.lower <= exact.lower).all()
    assert (band.upper >= exact.upper).all()
    assert (band.lower[1:] <= band.lower[:-1]).all()
    assert (band.upper[1:] >= band.upper[:-1]).all()


@quick
@given(draws, radii, levels, constants, st.floats(-3.0, 3.0), st.floats(0.1, 5.0))
def test_mean_bounds_mirror_each_other(z, r, alpha, lipschitz, minimum: float, width: float) -> None:
    plain = mean_bounds(z, 0.5, r, alpha, minimum=minimum, maximum=minimum + width, lipschitz=lipschitz)
    turned = mean_bounds(-z, 0.5, r, alpha, minimum=-minimum - width, maximum=-minimum, lipschitz=lipschitz)
    assert np.allclose(plain.lower, -turned.upper, atol=1e-9)
    assert (plain.lower >= minimum).all()
    assert (plain.upper <= minimum + width).all()
    assert (plain.lower[1:] <= plain.lower[:-1]).all()
    # the empirical mean, NaN at the worse end, lies between
    low, high = (
        np.clip(np.where(np.isnan(z), end, z), minimum, minimum + width) for end in (-np.inf, np.inf)
    )
    assert (plain.lower <= low.mean(axis=1) + 1e-9).all()
    assert (plain.upper >= high.mean(axis=1) - 1e-9).all()


@quick
@given(arrays(np.float64, 7, elements=ends), arrays(np.float64, 9, elements=ends))
def test_placement_values_average_to_the_auroc(anomalies: np.ndarray, normals: np.ndarray) -> None:
    bounds = ScoreBounds.exact(np.r_[anomalies, normals])
    of_anomalies, of_normals = placement_values(anomalies, normals)
    assert abs(of_anomalies.mean() - auroc(bounds, LABELS)) < 1e-12
    assert abs(of_normals.mean() - auroc(bounds, LABELS)) < 1e-12


@quick
@given(
    scores, arrays(np.float64, 16, elements=st.sampled_from([0.0, 1.0, np.inf])), levels, st.floats(0.0, 0.3)
)
def test_confidence_costs_and_never_pays(middle, width, alpha: float, per_image: float) -> None:
    bounds = ScoreBounds(middle - width, middle + width)
    plain, (tpr, fpr) = auroc(bounds, LABELS), tpr_fpr_at_threshold(bounds, LABELS, 0.5)
    for method in CONFIDENCE_METHODS:
        level = min(per_image, alpha / 16) if method == "union" else per_image
        options = {"method": method, "alpha": alpha, "alpha_per_image": level}
        claim = auroc_confidence(bounds, LABELS, **options)
        rates = tpr_fpr_confidence(bounds, LABELS, 0.5, **options)
        assert 0.0 <= claim.value <= plain
        assert 0.0 <= rates[0].value <= tpr
        assert fpr <= rates[1].value <= 1.0


@quick
@given(scores, scores)
def test_delong_knows_only_ranks_and_signs(one: np.ndarray, other: np.ndarray) -> None:
    first, second = ScoreBounds.exact(one), ScoreBounds.exact(other)
    estimate = delong_interval(first, LABELS)
    assert delong_interval(ScoreBounds.exact(np.exp(one)), LABELS) == estimate
    assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
    there, back = delong_test(first, second, LABELS), delong_test(second, first, LABELS)
    assert (there.value, there.low, there.high) == (-back.value, -back.high, -back.low)
    assert there.p_value == back.p_value
    assert 0.0 <= there.p_value <= 1.0


@quick
@given(scores, st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([None, 0.5, 0.9]))
def test_thresholds_rise_with_the_bounds_and_with_strictness(upper, beta: float, confidence) -> None:
    threshold = robust_conformal_threshold(upper, beta, confidence)
    assert robust_conformal_threshold(upper + 1.0, beta, confidence) == threshold + 1.0
    assert robust_conformal_threshold(upper, beta / 2, confidence) >= threshold
    assert (upper > threshold).mean() <= beta


@quick
@given(draws, radii, levels, constants, st.sampled_from(["clean", "in", "out", "both"]))
def test_one_draw_bounds_are_worse_than_the_draws(z, r, alpha: float, lipschitz: float, side) -> None:
    labels = [1, 0, 1, 0, 0, 1]
    value = one_draw_auroc(z, labels, 0.5, r, alpha, side, lipschitz)
    low, high = np.where(np.isnan(z), -np.inf, z)[[0, 2, 5]], np.where(np.isnan(z), np.inf, z)[[1, 3, 4]]
    assert (value >= 0.0).all()
    assert (value <= placement_values(low.ravel(), high.ravel())[0].mean()).all()
    assert (np.diff(value) <= 0.0).all()
    tpr, fpr = one_draw_rates(z, labels, 0.5, 0.5, r, alpha, side, lipschitz)
    assert (tpr <= (low > 0.5).mean()).all()
    assert (fpr >= (high > 0.5).mean()).all()
