from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import betaln, ndtr, ndtri
from scipy.stats import beta, binom

from certify.checks import InputError
from certify.mixture import (
    confidence_sequence_lower,
    confidence_sequence_radius,
    mixture_boundary,
    mixture_log_wealth,
)

ALPHA = 0.001
DRAWS = np.arange(1, 2001)


def type_one(boundaries: np.ndarray, rate: float) -> float:
    """P(some count reaches its boundary), looked at after every draw; exact up to rounding."""
    state, rejected = np.ones(1), 0.0
    for boundary in boundaries:
        state = np.convolve(state, [1.0 - rate, rate])
        rejected += state[boundary:].sum()
        state[boundary:] = 0.0
    return float(rejected)


@pytest.mark.parametrize(("ratio", "golden"), [(ndtri(0.6), 0.00080), (1.0, 0.00084), (2.0, 0.00069)])
def test_the_level_holds_when_looking_after_every_draw(ratio: float, golden: float) -> None:
    rate = float(ndtr(ratio))
    boundaries = mixture_boundary(DRAWS, rate, ALPHA, complement=float(ndtr(-ratio)))
    error = type_one(boundaries, rate)
    assert error <= ALPHA
    assert error == pytest.approx(golden, abs=5.1e-6)
    assert type_one(boundaries, rate - 0.02) < error


@pytest.mark.parametrize("rate", [0.5, float(ndtr(1.0))])
def test_peeking_at_clopper_pearson_breaks_the_level_tenfold(rate: float) -> None:
    """Why there are sequential tests at all: the fixed-n test, repeated after every draw."""
    peeking = (binom.isf(ALPHA, DRAWS, rate) + 1).astype(np.int64)
    assert type_one(peeking, rate) > 10 * ALPHA
    assert type_one(peeking, float(ndtr(1.0))) == pytest.approx(0.0146, abs=1e-4) or rate != float(ndtr(1.0))


def test_wealth_is_the_mean_likelihood_ratio_over_the_cut_prior() -> None:
    for a, b in ((0.5, 0.5), (2.0, 1.0)):
        for count, n, p0 in ((7, 9, 0.6), (0, 5, 0.3), (12, 12, 0.9)):

            def ratio(p: float, count: int = count, n: int = n, p0: float = p0, a=a, b=b) -> float:
                weight = beta.pdf(p, a, b) / beta.sf(p0, a, b)
                return weight * (p / p0) ** count * ((1 - p) / (1 - p0)) ** (n - count)

            expected = quad(ratio, p0, 1.0, limit=200)[0]
            assert float(mixture_log_wealth(count, n, p0, a, b)) == pytest.approx(
                math.log(expected), abs=1e-6
            )


def test_wealth_is_a_martingale_at_the_null() -> None:
    for p0 in (0.3, 0.84):
        for n in (1, 10, 200):
            now = np.exp(mixture_log_wealth(np.arange(n + 1), n, p0))
            later = np.exp(mixture_log_wealth(np.arange(n + 2), n + 1, p0))
            assert np.allclose(p0 * later[1:] + (1 - p0) * later[:-1], now, rtol=1e-9)


def test_all_successes_stop_at_the_golden_draws() -> None:
    for ratio, golden in ((1.0, 47), (2.0, 351)):
        n = np.arange(1, 400)
        boundaries = mixture_boundary(n, float(ndtr(ratio)), ALPHA)
        assert n[boundaries <= n][0] == golden


def test_the_boundary_is_the_fewest_that_reject() -> None:
    n = np.array([1, 5, 47, 300, 100_000])
    boundaries = mixture_boundary(n, 0.84, ALPHA)
    for trials, boundary in zip(n, boundaries, strict=True):
        if boundary <= trials:
            assert float(mixture_log_wealth(boundary, trials, 0.84)) >= -math.log(ALPHA)
        assert float(mixture_log_wealth(boundary - 1, trials, 0.84)) < -math.log(ALPHA) + 1e-6
    assert boundaries[0] == 2


def test_confidence_sequence_goldens() -> None:
    golden = {(100, 100): 0.906794, (1000, 1000): 0.989125, (990, 1000): 0.968035}
    golden |= {(9900, 10000): 0.984387, (99000, 100000): 0.988317, (100000, 100000): 0.999868}
    for (count, n), bound in golden.items():
        assert float(confidence_sequence_lower(count, n, ALPHA)) == pytest.approx(bound, abs=5.1e-7)


def test_confidence_sequence_inverts_the_whole_mixture_from_below() -> None:
    count, n = np.array([1, 30, 55, 60]), 60
    lower = confidence_sequence_lower(count, n, 0.05)
    wealth = betaln(count + 0.5, n - count + 0.5) - betaln(0.5, 0.5)
    wealth -= count * np.log(lower) + (n - count) * np.log1p(-lower)
    assert np.allclose(wealth, -math.log(0.05), atol=1e-6)
    assert (wealth >= -math.log(0.05)).all()
    assert (lower < count / n).all()
    assert float(confidence_sequence_lower(0, 60, 0.05)) == 0.0


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_confidence_sequence_covers_at_all_times_together(rate: float) -> None:
    boundaries = np.empty(600, dtype=np.int64)
    for n in range(1, 601):
        excludes = confidence_sequence_lower(np.arange(n + 1), n, 0.01) > rate
        boundaries[n - 1] = int(excludes.argmax()) if excludes.any() else n + 1
    assert 0.0 < type_one(boundaries, rate) <= 0.01


def test_radius_is_that_of_the_lower_bound() -> None:
    count = np.array([0, 500, 990, 1000])
    radius = confidence_sequence_radius(count, 1000, 0.25, ALPHA)
    assert radius[:2].tolist() == [0.0, 0.0]
    assert radius[2] == pytest.approx(0.25 * float(ndtri(0.968035)), abs=1e-5)
    assert radius[3] > radius[2]


def test_what_is_no_count_is_refused() -> None:
    with pytest.raises(InputError, match="need 0 <= successes <= n"):
        mixture_log_wealth(5, 4, 0.5)
    with pytest.raises(InputError, match="integer counts"):
        confidence_sequence_lower(2.5, 4, 0.01)
    with pytest.raises(InputError, match="complement: got"):
        mixture_boundary(DRAWS, 0.8, 0.01, complement=0.1)


def test_confidence_sequence_is_that_of_the_krichevsky_trofimov_bettor() -> None:
    """Betting the plug-in rate (S + 1/2) / (n + 1) on each draw telescopes to the mixture: wealth 1 / alpha."""
    draws = np.random.default_rng(0).random(80) < 0.7
    before = np.concatenate([[0], np.cumsum(draws)[:-1]])
    plug_in = (before + 0.5) / (np.arange(80) + 1.0)
    lower = float(confidence_sequence_lower(int(draws.sum()), 80, ALPHA))
    bets = np.where(draws, plug_in / lower, (1.0 - plug_in) / (1.0 - lower))
    assert np.log(bets).sum() == pytest.approx(-math.log(ALPHA), abs=1e-6)


def test_masses_too_small_for_scipy_are_not_believed():
    """Found by a property test: SciPy's mass of 24 successes is 4.5e-290, and off by 4e-3 of itself."""
    wealth = mixture_log_wealth(np.arange(267), 266, 0.953125)
    assert np.isneginf(wealth[24])
    finite = wealth[np.isfinite(wealth)]
    assert len(finite) > 200
    assert (np.diff(finite) > 0.0).all()
