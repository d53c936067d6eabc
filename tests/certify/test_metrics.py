from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from certify.checks import InputError
from certify.metrics import (
    auroc,
    average_precision,
    fpr_at_tpr,
    rate_interval,
    tpr_fpr_at_threshold,
    worst_case,
)
from certify.types import ScoreBounds

INF = np.inf


def random_case(seed: int, images: int = 14) -> tuple[ScoreBounds, np.ndarray]:
    """Small integer intervals, so that ties are common, with some infinite ends."""
    rng = np.random.default_rng(seed)
    middle = rng.integers(0, 6, images).astype(np.float64)
    lower, upper = middle - rng.integers(0, 3, images), middle + rng.integers(0, 3, images)
    lower[rng.random(images) < 0.15] = -INF
    upper[rng.random(images) < 0.15] = INF
    labels = rng.permutation(np.r_[0, 1, rng.integers(0, 2, images - 2)])
    return ScoreBounds(lower, upper), labels


def pair(anomaly: float, normal: float) -> float:
    if anomaly == -INF or normal == INF:
        return 0.0
    return 1.0 if anomaly > normal else 0.5 if anomaly == normal else 0.0


@pytest.mark.parametrize("seed", range(30))
def test_auroc_is_the_mean_over_pairs(seed: int) -> None:
    bounds, labels = random_case(seed)
    pairs = [pair(a, b) for a in bounds.lower[labels == 1] for b in bounds.upper[labels == 0]]
    assert auroc(bounds, labels) == pytest.approx(np.mean(pairs), abs=1e-15)


@pytest.mark.parametrize("seed", range(10))
def test_auroc_is_the_area_under_the_certified_roc(seed: int) -> None:
    bounds, labels = random_case(seed)
    anomalies, normals = bounds.lower[labels == 1], bounds.upper[labels == 0]
    finite = np.unique(np.r_[anomalies, normals])
    thresholds = finite[np.isfinite(finite)][::-1]
    # Normal images without a bound are flagged at every threshold, anomalies without one at none.
    tpr = [0.0, *((anomalies >= t).mean() for t in thresholds)]
    fpr = [(normals == INF).mean(), *((normals >= t).mean() for t in thresholds)]
    left_over = tpr[-1] * (1.0 - fpr[-1])
    assert auroc(bounds, labels) == pytest.approx(np.trapezoid(tpr, fpr) + left_over, abs=1e-12)


def test_infinite_ends_lose_every_pair_also_to_each_other() -> None:
    labels = [1, 0]
    for lower, upper in ((-INF, -INF), (-INF, 0.0), (0.0, INF), (INF, INF), (-INF, INF)):
        bounds = ScoreBounds(np.array([lower, -INF]), np.array([INF, upper]))
        assert auroc(bounds, labels) == 0.0
    assert auroc(ScoreBounds(np.array([INF, 0.0]), np.array([INF, 0.0])), labels) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_exact_scores_give_scikit_learns_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[np.zeros(40, int), np.ones(25, int)])
    distinct, tied = rng.normal(size=65), rng.integers(0, 8, 65).astype(float)
    for side in ("clean", "both"):
        for scores in (distinct, tied):
            assert auroc(ScoreBounds.exact(scores), labels, side) == pytest.approx(
                roc_auc_score(labels, scores), abs=1e-14
            )
        assert average_precision(ScoreBounds.exact(distinct), labels, side) == pytest.approx(
            average_precision_score(labels, distinct), abs=1e-14
        )
    fpr, tpr, _ = roc_curve(labels, distinct, drop_intermediate=False)
    assert fpr_at_tpr(ScoreBounds.exact(distinct), labels) == pytest.approx(fpr[tpr >= 0.95].min())


@pytest.mark.parametrize("seed", range(30))
def test_no_scores_within_the_bounds_do_worse(seed: int) -> None:
    bounds, labels = random_case(seed)
    rng = np.random.default_rng(1000 + seed)
    floor, ceiling = np.maximum(bounds.lower, -20.0), np.minimum(bounds.upper, 20.0)
    worst = {m: m(bounds, labels) for m in (auroc, average_precision, fpr_at_tpr)}
    tpr_bound, fpr_bound = tpr_fpr_at_threshold(bounds, labels, 2.0)
    for _ in range(40):
        scores = np.round(floor + rng.random(len(labels)) * (ceiling - floor))
        scores = np.clip(scores, floor, ceiling)
        assert worst[auroc] <= roc_auc_score(labels, scores) + 1e-12
        assert worst[average_precision] <= average_precision_score(labels, scores) + 1e-12
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        assert worst[fpr_at_tpr] >= fpr[tpr >= 0.95 - 1e-12].min() - 1e-12
        assert tpr_bound <= (scores[labels == 1] > 2.0).mean()
        assert fpr_bound >= (scores[labels == 0] > 2.0).mean()


def test_average_precision_puts_tied_normals_first() -> None:
    bounds = ScoreBounds.exact(np.array([1.0, 1.0, 1.0, 0.0]))
    assert average_precision(bounds, [1, 1, 0, 0]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    lost = ScoreBounds(np.array([-INF, 3.0, 0.0, 0.0]), np.array([INF, 3.0, 0.0, INF]))
    assert average_precision(lost, [1, 1, 0, 0]) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_fpr_is_one_when_too_many_anomalies_have_no_bound() -> None:
    lower = np.r_[np.full(2, -INF), np.full(18, 5.0), np.zeros(10)]
    bounds = ScoreBounds(lower, np.maximum(lower, 0.0))
    labels = np.r_[np.ones(20, int), np.zeros(10, int)]
    assert fpr_at_tpr(bounds, labels) == 1.0
    assert fpr_at_tpr(bounds, labels, tpr=0.9) == 0.0


def test_exactly_nineteen_of_twenty_are_kept() -> None:
    bounds = ScoreBounds.exact(np.r_[np.arange(1.0, 21.0), 1.5])
    assert fpr_at_tpr(bounds, np.r_[np.ones(20, int), 0]) == 0.0  # dropping the lowest anomaly is allowed
    assert fpr_at_tpr(bounds, np.r_[np.ones(20, int), 0], tpr=0.951) == 1.0


def test_the_flag_is_strictly_above_the_threshold() -> None:
    bounds = ScoreBounds.exact(np.array([2.0, 3.0, 2.0, 3.0]))
    assert tpr_fpr_at_threshold(bounds, [1, 1, 0, 0], 2.0) == (0.5, 0.5)


def radius_case(seed: int) -> tuple[ScoreBounds, ScoreBounds, np.ndarray]:
    """Bounds that widen over four radii, the first of which is 0."""
    bounds, labels = random_case(seed, 30)
    growth = np.arange(4.0)[:, None]
    lower = np.where(bounds.lower == -INF, -INF, bounds.lower - growth)
    upper = np.where(bounds.upper == INF, INF, bounds.upper + growth)
    return ScoreBounds(lower, upper), ScoreBounds(lower[0], upper[0]), labels


@pytest.mark.parametrize("seed", range(5))
def test_sides_and_radii_are_ordered(seed: int) -> None:
    bounds, calm, labels = radius_case(seed)
    for metric, sign in ((auroc, 1.0), (average_precision, 1.0), (fpr_at_tpr, -1.0)):
        values = {side: sign * metric(bounds, labels, side, calm) for side in ("clean", "in", "out", "both")}
        for side in ("in", "out"):
            assert (values["both"] <= values[side]).all()
            assert (values[side] <= values["clean"]).all()
        for value in values.values():
            assert value.shape == (4,)
            assert (np.diff(value) <= 0).all()
        assert (values["clean"] == values["both"][0]).all()


def test_rows_of_many_radii_are_the_single_radii() -> None:
    bounds, calm, labels = radius_case(7)
    for metric in (auroc, average_precision, fpr_at_tpr):
        for side in ("in", "out", "both"):
            rows = metric(bounds, labels, side, calm)
            assert rows.tolist() == [metric(bounds.at(i), labels, side, calm) for i in range(4)]
            assert isinstance(metric(bounds.at(0), labels, side, calm), float)


def test_each_side_attacks_only_its_images() -> None:
    bounds, calm, labels = radius_case(3)
    for side, anomalies, normals in (("in", calm, bounds), ("out", bounds, calm), ("both", bounds, bounds)):
        low, high = worst_case(bounds, labels, side, calm)
        assert np.array_equal(low, np.broadcast_to(anomalies.lower, (4, 30))[:, labels == 1])
        assert np.array_equal(high, np.broadcast_to(normals.upper, (4, 30))[:, labels == 0])


@pytest.mark.parametrize("side", ["in", "out", "clean"])
def test_what_an_unattacked_image_scores_is_never_guessed(side) -> None:
    bounds, _, labels = radius_case(0)
    with pytest.raises(InputError, match="unattacked"):
        auroc(bounds, labels, side)
    with pytest.raises(InputError, match="need \\(30,\\)"):
        auroc(bounds, labels, side, bounds)


@pytest.mark.parametrize(
    ("labels", "message"), [([1, 1, 1], "both classes"), ([0, 1], "2 for 3"), ([0, 1, 2], "allowed")]
)
def test_bad_labels_are_refused(labels, message: str) -> None:
    with pytest.raises(InputError, match=message):
        auroc(ScoreBounds.exact(np.arange(3.0)), labels)


def test_rate_interval_is_clopper_pearson() -> None:
    low, high = rate_interval(18, 20)
    assert low == pytest.approx(beta.ppf(0.025, 18, 3))
    assert high == pytest.approx(beta.ppf(0.975, 19, 2))
    assert rate_interval(0, 20)[0] == 0.0
    assert rate_interval(20, 20)[1] == 1.0
    with pytest.raises(InputError, match="trials"):
        rate_interval(21, 20)
