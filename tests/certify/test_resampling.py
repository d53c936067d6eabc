from __future__ import annotations

import numpy as np
import pytest

from certify.checks import InputError
from certify.metrics import auroc
from certify.resampling import (
    drawn_counts,
    pair_credits,
    resampled_aurocs,
    resampled_mean_aurocs,
    resampled_rows,
)
from certify.types import ScoreBounds
from certify.uncertainty import bootstrap_interval, bootstrap_test, placement_values


def scores(seed: int, m: int = 7, n: int = 11) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and ends that are infinite."""
    rng = np.random.default_rng(seed)
    anomalies, normals = rng.integers(0, 6, m).astype(float), rng.integers(0, 4, n).astype(float)
    anomalies[0], normals[0] = -np.inf, np.inf
    return anomalies, normals


@pytest.mark.parametrize("seed", range(3))
def test_each_resample_has_the_auroc_of_its_images(seed: int) -> None:
    anomalies, normals = scores(seed)
    fast = resampled_aurocs(anomalies, normals, seed, 300)  # more than one block
    for value, (rows, others) in zip(fast, resampled_rows(7, 11, seed, 300), strict=True):
        drawn = np.r_[anomalies[rows], normals[others]]
        assert value == auroc(ScoreBounds.exact(drawn), np.repeat([1, 0], [7, 11]))


def test_the_bootstrap_of_the_auroc_is_that_of_any_metric_but_fast() -> None:
    labels = np.repeat([1, 0], [7, 11])
    one, other = (ScoreBounds.exact(np.r_[scores(seed)]) for seed in (0, 1))

    def slow(bounds, labels):
        return auroc(bounds, labels)

    assert bootstrap_interval(auroc, one, labels, seed=3) == bootstrap_interval(slow, one, labels, seed=3)
    assert bootstrap_test(auroc, one, other, labels, seed=3) == bootstrap_test(
        slow, one, other, labels, seed=3
    )


def test_credits_count_wins_ties_and_lost_ends() -> None:
    credits = pair_credits(np.array([1.0, 2.0, -np.inf]), np.array([1.0, np.inf, -np.inf]))
    assert credits.tolist() == [[1.0, 0.0, 2.0], [2.0, 0.0, 2.0], [0.0, 0.0, 0.0]]


def test_what_gives_no_resamples_is_refused() -> None:
    with pytest.raises(InputError, match="resamples: got 0"):
        list(resampled_rows(2, 2, 0, 0))
    with pytest.raises(InputError, match="seed: got -1"):
        list(resampled_rows(2, 2, -1, 5))


def test_of_several_sets_the_normals_are_drawn_once() -> None:
    rng = np.random.default_rng(3)
    normals, sets = rng.normal(size=40), (rng.normal(0.5, size=30), rng.normal(1.0, size=7))
    found = resampled_mean_aurocs(sets, normals, 5, 300)
    of_normals = np.repeat(np.arange(40), drawn_counts(40, 5, 0, 300)[-1])
    assert len(of_normals) == 40
    one = []
    for place, anomalies in enumerate(sets, 1):
        rows = np.repeat(np.arange(len(anomalies)), drawn_counts(len(anomalies), 5, place, 300)[-1])
        bounds = ScoreBounds.exact(np.r_[anomalies[rows], normals[of_normals]])
        one.append(auroc(bounds, np.r_[np.ones(len(rows), int), np.zeros(40, int)]))
    assert found[-1] == pytest.approx(np.mean(one), abs=1e-12)


def test_the_spread_of_a_mean_over_sets_is_that_of_the_u_statistic() -> None:
    """DeLong for several samples: normals by their mean placement over sets, each set's anomalies by their own."""
    rng = np.random.default_rng(4)
    normals, sets = rng.normal(size=100), [rng.normal(shift, size=60) for shift in (0.5, 0.5, 1.0)]
    placed = [placement_values(anomalies, normals) for anomalies in sets]
    shared = np.mean([of_normals for _, of_normals in placed], axis=0)
    variance = shared.var(ddof=1) / 100 + sum(own.var(ddof=1) / 60 for own, _ in placed) / 9
    drawn = resampled_mean_aurocs(sets, normals, 0, 2000)
    assert drawn.std(ddof=1) == pytest.approx(np.sqrt(variance), rel=0.05)
    # normals that are drawn anew for every set would hide a part of the spread
    apart = np.mean(
        [resampled_mean_aurocs([one], normals, seed, 2000) for seed, one in enumerate(sets)], axis=0
    )
    assert apart.std(ddof=1) < 0.9 * np.sqrt(variance)


def test_no_set_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        resampled_mean_aurocs([], np.zeros(3), 0, 10)
