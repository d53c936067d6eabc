from __future__ import annotations

import numpy as np
import pytest

from certify.checks import InputError
from certify.metrics import auroc
from certify.resampling import pair_credits, resampled_aurocs, resampled_rows
from certify.types import ScoreBounds
from certify.uncertainty import bootstrap_interval, bootstrap_test


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
