from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from sklearn.metrics import roc_auc_score

from certify.checks import InputError
from certify.metrics import auroc, average_precision, fpr_at_tpr
from certify.types import ScoreBounds
from certify.uncertainty import (
    bootstrap_interval,
    bootstrap_test,
    delong_interval,
    delong_test,
    placement_values,
)

INF = np.inf
LABELS = np.r_[np.ones(20, int), np.zeros(25, int)]


def scores(seed: int, shift: float = 1.0, tied: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=45) + shift * LABELS
    return np.round(values) if tied else values


def kernel(anomaly: float, normal: float) -> float:
    if anomaly == -INF or normal == INF:
        return 0.0
    return float(anomaly > normal) + 0.5 * float(anomaly == normal)


def brute_covariance(*detectors: np.ndarray) -> np.ndarray:
    """DeLong's matrix from all pairs, as in the paper of 1988."""
    won = np.array([[[kernel(a, b) for b in s[LABELS == 0]] for a in s[LABELS == 1]] for s in detectors])
    return np.cov(won.mean(axis=2)) / 20 + np.cov(won.mean(axis=1)) / 25


@pytest.mark.parametrize("seed", range(10))
def test_placement_values_are_the_row_and_column_means_of_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.array([-INF, -1.0, 0.0, 1.0, 2.0, INF])
    anomalies, normals = rng.choice(values, 7), rng.choice(values, 9)
    won = np.array([[kernel(a, b) for b in normals] for a in anomalies])
    of_anomalies, of_normals = placement_values(anomalies, normals)
    assert of_anomalies == pytest.approx(won.mean(axis=1), abs=1e-15)
    assert of_normals == pytest.approx(won.mean(axis=0), abs=1e-15)


@pytest.mark.parametrize("tied", [False, True])
def test_the_standard_error_is_delongs(tied: bool) -> None:
    values = scores(0, tied=tied)
    estimate = delong_interval(ScoreBounds.exact(values), LABELS)
    assert estimate.value == pytest.approx(roc_auc_score(LABELS, values), abs=1e-15)
    assert estimate.standard_error**2 == pytest.approx(brute_covariance(values), rel=1e-12)
    assert estimate.method == "delong"


@pytest.mark.parametrize("tied", [False, True])
def test_the_paired_test_is_delongs(tied: bool) -> None:
    one, other = scores(1, tied=tied), scores(1, tied=tied) + scores(2, 0.0, tied)
    covariance = brute_covariance(one, other)
    result = delong_test(ScoreBounds.exact(one), ScoreBounds.exact(other), LABELS)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert result.standard_error**2 == pytest.approx(variance, rel=1e-12)
    assert result.value == pytest.approx(roc_auc_score(LABELS, one) - roc_auc_score(LABELS, other), abs=1e-15)
    z = result.value / result.standard_error
    assert result.p_value == pytest.approx(2 * ndtr(-abs(z)), rel=1e-12)
    assert (result.low > 0 or result.high < 0) == (result.p_value < 0.05)


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """Nearly equal detectors: their scores move together, so the difference is known far better than each."""
    one, other = scores(3), scores(3) - 0.2 * LABELS
    result = delong_test(ScoreBounds.exact(one), ScoreBounds.exact(other), LABELS)
    assert result.standard_error < 0.3 * delong_interval(ScoreBounds.exact(one), LABELS).standard_error


def test_sides_and_infinite_ends_are_those_of_auroc() -> None:
    rng = np.random.default_rng(4)
    middle = scores(4)
    calm = ScoreBounds(middle - 0.1, middle + 0.1)
    lower, upper = middle - rng.random(45), middle + rng.random(45)
    lower[3], upper[30], upper[3], lower[30] = -INF, INF, middle[3], middle[30]
    bounds = ScoreBounds(np.minimum(lower, calm.lower), np.maximum(upper, calm.upper))
    for side, low, high in (("in", calm, bounds), ("out", bounds, calm), ("both", bounds, bounds)):
        worst = np.where(LABELS == 1, low.lower, high.upper)
        estimate = delong_interval(bounds, LABELS, side, calm)
        assert estimate.value == auroc(bounds, LABELS, side, calm)
        assert estimate.standard_error**2 == pytest.approx(brute_covariance(worst), rel=1e-12)
        result = delong_test(bounds, calm, LABELS, side, (calm, calm))
        assert result.value == auroc(bounds, LABELS, side, calm) - auroc(calm, LABELS, side, calm)
        for interval in (
            estimate,
            bootstrap_interval(auroc, bounds, LABELS, side, calm, seed=0, resamples=50),
        ):
            assert interval.low < interval.value < interval.high


@pytest.mark.parametrize("true", [0.7, 0.95])
def test_delongs_interval_covers_binormal_aurocs(true: float) -> None:
    """2000 test sets of 50 + 50 images: coverage within what 2000 tosses allow; plain normal ends reach .90 at .95."""
    rng, shift = np.random.default_rng(0), np.sqrt(2.0) * ndtri(true)
    labels = np.r_[np.ones(50, int), np.zeros(50, int)]
    estimates = [
        delong_interval(ScoreBounds.exact(rng.normal(size=100) + shift * labels), labels) for _ in range(2000)
    ]
    covered = np.mean([e.low <= true <= e.high for e in estimates])
    assert 0.93 < covered < 0.97
    spread = np.std([e.value for e in estimates])
    assert np.mean([e.standard_error for e in estimates]) == pytest.approx(spread, rel=0.06)


def test_the_paired_test_keeps_its_level() -> None:
    rng, labels = np.random.default_rng(0), np.r_[np.ones(40, int), np.zeros(40, int)]
    common = rng.normal(size=(1000, 80)) + labels
    pairs = [(row + 0.7 * rng.normal(size=80), row + 0.7 * rng.normal(size=80)) for row in common]
    p_values = np.array(
        [delong_test(ScoreBounds.exact(a), ScoreBounds.exact(b), labels).p_value for a, b in pairs]
    )
    assert 0.03 < (p_values < 0.05).mean() < 0.07
    assert 0.45 < (p_values < 0.5).mean() < 0.55


def test_a_perfect_auroc_is_no_certainty() -> None:
    perfect, constant = ScoreBounds.exact(LABELS + 0.0), ScoreBounds.exact(np.zeros(45))
    estimate = delong_interval(perfect, LABELS)
    assert (estimate.value, estimate.standard_error, estimate.high) == (1.0, 0.0, 1.0)
    assert estimate.low == pytest.approx(
        0.025 ** (1 / 20)
    )  # twenty pairs without an image in common, all won
    assert estimate.method == "hoeffding"
    half = delong_interval(constant, LABELS)
    assert half.low == pytest.approx(1.0 - half.high)
    assert half.low < 0.3
    difference = delong_test(perfect, constant, LABELS)
    assert (difference.value, difference.method) == (0.5, "hoeffding")
    assert difference.p_value == pytest.approx(2 * np.exp(-20 * 0.25 / 2))
    assert delong_test(perfect, perfect, LABELS).p_value == 1.0


@pytest.mark.parametrize("metric", [auroc, average_precision, fpr_at_tpr, partial(fpr_at_tpr, tpr=0.8)])
def test_the_bootstrap_resamples_each_class(metric) -> None:
    values = scores(5, 2.0)
    estimate = bootstrap_interval(metric, ScoreBounds.exact(values), LABELS, seed=1, resamples=200)
    assert estimate.value == metric(ScoreBounds.exact(values), LABELS)
    assert 0.0 <= estimate.low < estimate.high <= 1.0
    again = bootstrap_interval(metric, ScoreBounds.exact(values), LABELS, seed=1, resamples=200)
    assert again == estimate
    assert bootstrap_interval(metric, ScoreBounds.exact(values), LABELS, seed=2, resamples=200) != estimate


def test_the_bootstrap_agrees_with_delong() -> None:
    one, other = ScoreBounds.exact(scores(6)), ScoreBounds.exact(scores(6) + scores(7, 0.0))
    ours, theirs = bootstrap_interval(auroc, one, LABELS, seed=0), delong_interval(one, LABELS)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.1)
    paired, test = bootstrap_test(auroc, one, other, LABELS, seed=0), delong_test(one, other, LABELS)
    assert paired.value == test.value
    assert paired.standard_error == pytest.approx(test.standard_error, rel=0.1)
    assert paired.p_value == pytest.approx(test.p_value, abs=0.1)


def test_the_paired_bootstrap_draws_the_same_images_for_both() -> None:
    one = ScoreBounds.exact(scores(8))
    same = bootstrap_test(auroc, one, ScoreBounds.exact(3.0 * scores(8) - 1.0), LABELS, seed=0, resamples=99)
    assert (same.value, same.standard_error, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 0.0, 1.0)
    better = ScoreBounds.exact(LABELS + 0.0)
    assert bootstrap_test(auroc, better, one, LABELS, seed=0, resamples=99).p_value == 0.02


def test_the_global_random_state_is_left_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    bootstrap_interval(auroc, ScoreBounds.exact(scores(0)), LABELS, seed=0, resamples=3)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_bad_arguments_are_refused() -> None:
    bounds = ScoreBounds.exact(scores(0))
    radii = ScoreBounds(bounds.lower[None], bounds.upper[None])
    with pytest.raises(InputError, match="take one radius by at"):
        delong_interval(radii, LABELS)
    with pytest.raises(InputError, match="at least two of each"):
        delong_interval(bounds, np.r_[1, np.zeros(44, int)])
    with pytest.raises(InputError, match="level"):
        delong_interval(bounds, LABELS, level=1.0)
    with pytest.raises(InputError, match="resamples"):
        bootstrap_interval(auroc, bounds, LABELS, seed=0, resamples=0)
    with pytest.raises(InputError, match="seed"):
        bootstrap_test(auroc, bounds, bounds, LABELS, seed=-1)
    with pytest.raises(InputError, match="unattacked"):
        delong_test(bounds, bounds, LABELS, "in")
