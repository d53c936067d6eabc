from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from certify.bounds import shifted_ranks
from certify.checks import InputError
from certify.sequential import default_looks, group_sequential_plan
from certify.sequential_ranks import sequential_ranks, shifted_rates


def ever_reached(looks: tuple[int, ...], counts: tuple[int, ...], rate: float) -> float:
    """P(at some look as many successes as there), by plain convolution."""
    state, drawn, reached = np.ones(1), 0, 0.0
    for look, count in zip(looks, counts, strict=True):
        for _ in range(look - drawn):
            state = np.convolve(state, [1.0 - rate, rate])
        drawn = look
        reached += state[count:].sum()
        state[count:] = 0.0
    return float(reached)


def running_bounds(
    draws: np.ndarray, looks: tuple[int, ...], ranks: tuple[int, ...], side: str
) -> np.ndarray:
    """The best bound of each row of draws after all looks, from the definition."""
    sign = 1.0 if side == "lower" else -1.0
    best = np.full(len(draws), -np.inf)
    for look, rank in zip(looks, ranks, strict=True):
        if 1 <= rank <= look:
            best = np.maximum(best, sign * np.sort(draws[:, :look], axis=1)[:, rank - 1])
    return sign * best


@pytest.mark.parametrize("masses", [(0.5, 0.25, 0.25), (0.2, 0.5, 0.3), (0.05, 0.05, 0.9)])
@pytest.mark.parametrize("alpha", [0.2, 0.05])
def test_ranks_cover_exactly_over_all_looks_with_atoms(masses: tuple[float, ...], alpha: float) -> None:
    """All 3^9 sequences of a score on three atoms: the running bound misses its quantile rarely enough."""
    looks, percentile = (3, 5, 9), 0.5
    draws = np.stack(np.meshgrid(*[[0.0, 1.0, 2.0]] * 9, indexing="ij"), axis=-1).reshape(-1, 9)
    weights = np.prod(np.asarray(masses)[draws.astype(int)], axis=1)
    for shift in (0.0, 0.4):
        lower, upper = sequential_ranks(looks, percentile, shift, alpha)
        low, high = running_bounds(draws, looks, lower, "lower"), running_bounds(draws, looks, upper, "upper")
        for bound, quantile, wrong in (
            (low, ndtr(-shift), np.greater),
            (high, ndtr(shift), np.less),
        ):
            truth = float(np.searchsorted(np.cumsum(masses) + 1e-12, quantile))
            assert weights[wrong(bound, truth)].sum() <= alpha
            assert np.isfinite(bound).any()


def test_ranks_of_a_continuous_score_miss_with_exactly_the_level_spent() -> None:
    """Where no draw ties, the union over the looks misses at the plan's own level: nothing is given away."""
    looks, alpha = (20, 45, 80), 0.05
    for percentile, shift in ((0.5, 0.0), (0.5, 0.3), (0.7, 0.2)):
        lower, upper = sequential_ranks(looks, percentile, shift, alpha)
        centre = float(ndtri(percentile))
        for ranks, rate in (
            (tuple(n - k + 1 for n, k in zip(looks, lower, strict=True)), float(ndtr(shift - centre))),
            (upper, float(ndtr(shift + centre))),
        ):
            missed = ever_reached(looks, ranks, rate)
            assert 0.5 * alpha < missed <= alpha
            assert missed == pytest.approx(group_sequential_plan(rate, alpha, looks).spent, rel=1e-6)


def test_ranks_mirror_each_other_at_the_median() -> None:
    looks = default_looks(0.54, 1e-5, 10_000, multiple=50)
    lower, upper = sequential_ranks(looks, 0.5, 0.1, 1e-5)
    assert [n + 1 - k for n, k in zip(looks, lower, strict=True)] == list(upper)


def test_one_look_gives_the_ranks_of_a_fixed_number_of_draws() -> None:
    for n in (50, 1000):
        for percentile, shift in ((0.5, 0.0), (0.5, 1.0), (0.8, 0.3)):
            ranks = sequential_ranks([n], percentile, shift, 0.001)
            assert ranks == tuple((rank,) for rank in shifted_ranks(n, percentile, shift, 0.001))


def test_rates_are_the_shifted_percentile_and_its_complement() -> None:
    above, below = shifted_rates(0.7, 0.4)
    assert above.p0 == pytest.approx(1.0 - float(ndtr(ndtri(0.7) - 0.4)), abs=1e-15)
    assert below.p0 == pytest.approx(float(ndtr(ndtri(0.7) + 0.4)), abs=1e-15)
    for rate in (above, below):
        assert rate.p0 + rate.complement == pytest.approx(1.0, abs=1e-15)
    assert shifted_rates(0.5, 7.0)[1].complement == pytest.approx(float(ndtr(-7.0)), rel=1e-14)


def test_a_hopeless_shift_leaves_no_rank() -> None:
    assert sequential_ranks([100, 1000], 0.5, 50.0, 0.001) == ((0, 0), (101, 1001))
    with pytest.raises(InputError, match="shift: got"):
        sequential_ranks([100], 0.5, -0.1, 0.001)
    with pytest.raises(InputError, match="percentile: got"):
        sequential_ranks([100], 1.0, 0.1, 0.001)
