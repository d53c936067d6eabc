from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import beta as beta_law
from scipy.stats import binom

from certify.certificate import certify_scores
from certify.checks import InputError
from certify.conformal import conformal_rank, robust_conformal_threshold

INF = np.inf


@pytest.mark.parametrize("values", [np.arange(8.0), np.array([0.0, 1.0, 1.0, 1.0, 2.0, 2.0, INF, INF])])
@pytest.mark.parametrize("beta", [0.05, 0.125, 0.25, 0.3, 0.5, 0.9])
def test_a_fresh_exchangeable_value_exceeds_with_probability_beta_at_most(values, beta: float) -> None:
    """Any of the values is the fresh one with equal probability; the others calibrate."""
    above = np.mean(
        [fresh > robust_conformal_threshold(np.delete(values, i), beta) for i, fresh in enumerate(values)]
    )
    assert above <= beta
    if len(set(values)) == len(values):
        assert above > beta - 1 / len(values)


@pytest.mark.parametrize("images", [1, 5, 19, 20, 99, 500])
@pytest.mark.parametrize("beta", [0.01, 0.05, 0.2])
def test_the_marginal_rank_is_the_smallest_that_holds(images: int, beta: float) -> None:
    rank = conformal_rank(images, beta)
    assert 1 - rank / (images + 1) <= beta + 1e-12  # the rate of values without ties
    assert 1 - (rank - 1) / (images + 1) > beta


def test_a_marginal_rank_at_a_whole_number_is_exact() -> None:
    assert conformal_rank(99, 0.05) == 95  # a product that floating point puts an ulp above 95
    assert conformal_rank(99, 0.05 - 1e-12) == 96  # and one that is truly above it


@pytest.mark.parametrize("images", [10, 50, 300])
@pytest.mark.parametrize("beta", [0.05, 0.2])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_the_pac_rank_is_the_smallest_that_holds(images: int, beta: float, confidence: float) -> None:
    """F(U_(k)) of continuous values has the law Beta(k, images + 1 - k): exact on both sides."""
    rank = conformal_rank(images, beta, confidence)
    if rank <= images:
        assert beta_law.sf(1 - beta, rank, images + 1 - rank) >= confidence
    if rank > 1:
        assert beta_law.sf(1 - beta, rank - 1, images + 2 - rank) < confidence
    assert rank == next(
        k for k in range(1, images + 2) if k == images + 1 or binom.cdf(k - 1, images, 1 - beta) >= confidence
    )
    if confidence >= 0.9:
        assert rank >= conformal_rank(images, beta)


def test_the_pac_rate_holds_with_ties_by_exact_summation() -> None:
    """Values 0 < 1 < 2 with given rates: sets whose threshold lets more than beta pass have probability <= .1."""
    rates, n, beta = np.array([0.7, 0.2, 0.1]), 6, 0.25
    bad = 0.0
    for counts in product(range(n + 1), repeat=2):
        if sum(counts) > n:
            continue
        full = np.array([*counts, n - sum(counts)])
        threshold = robust_conformal_threshold(np.repeat([0.0, 1.0, 2.0], full), beta, 0.9)
        probability = binom.pmf(full[0], n, 0.7) * binom.pmf(full[1], n - full[0], 2 / 3)
        bad += probability * (rates[np.arange(3.0) > threshold].sum() > beta)
    assert bad <= 0.1


def test_false_alarms_are_at_most_beta_plus_alpha_by_exact_summation() -> None:
    """Attacked scores 1 .. 8 equally likely; a bound is right or, with probability alpha, far too low."""
    alpha, beta, attacked = 0.2, 0.5, np.arange(1.0, 9.0)
    shown = [(score, (1 - alpha) / 8) for score in attacked] + [(0.0, alpha)]
    alarms = 0.0
    for calibration in product(shown, repeat=3):
        threshold = robust_conformal_threshold(np.array([bound for bound, _ in calibration]), beta)
        alarms += np.prod([weight for _, weight in calibration]) * (attacked > threshold).mean()
    assert beta < alarms <= beta + alpha  # alpha is not for free


def test_attacked_linear_scores_stay_below() -> None:
    """The certificate of a linear score is exact, so the share of attacked normals above is near beta."""
    rng, sigma, radius, beta = np.random.default_rng(0), 0.25, 0.25, 0.1
    clean = rng.normal(size=400)
    draws = clean[:, None] + sigma * rng.normal(size=(400, 2000))
    threshold = robust_conformal_threshold(certify_scores(draws, sigma, [radius], 0.001).upper[0], beta)
    attacked = rng.normal(size=100_000) + radius
    assert 0.03 < (attacked > threshold).mean() <= beta + 0.001
    unattacked = robust_conformal_threshold(certify_scores(draws, sigma, [0.0], 0.001).upper[0], beta)
    assert unattacked < threshold
    assert (attacked > unattacked).mean() > beta + 0.001  # the clean threshold does not withstand it


def test_too_few_images_flag_nothing() -> None:
    assert robust_conformal_threshold(np.arange(18.0), 0.05) == INF
    assert robust_conformal_threshold(np.arange(19.0), 0.05) == 18.0
    assert robust_conformal_threshold(np.arange(44.0), 0.05, 0.9) == INF
    assert robust_conformal_threshold(np.arange(45.0), 0.05, 0.9) == 44.0  # 0.95^45 <= 0.1 < 0.95^44
    assert robust_conformal_threshold(np.r_[np.zeros(90), np.full(10, INF)], 0.05) == INF


@pytest.mark.parametrize(
    ("upper", "beta", "confidence", "message"),
    [
        (np.zeros((2, 3)), 0.1, None, "need \\(images,\\)"),
        (np.zeros(0), 0.1, None, "need \\(images,\\)"),
        (np.array([0.0, np.nan]), 0.1, None, "NaN"),
        (np.zeros(5), 0.0, None, "beta"),
        (np.zeros(5), 0.1, 1.0, "confidence"),
    ],
)
def test_bad_arguments_are_refused(upper, beta: float, confidence, message: str) -> None:
    with pytest.raises(InputError, match=message):
        robust_conformal_threshold(upper, beta, confidence)
    with pytest.raises(InputError, match="images"):
        conformal_rank(0, 0.1)
