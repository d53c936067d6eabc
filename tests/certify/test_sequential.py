from __future__ import annotations

import math
import time
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binom

from certify.bounds import min_samples, order_ranks
from certify.checks import InputError
from certify.sequential import (
    GroupSequentialPlan,
    default_looks,
    fewest_draws,
    group_sequential_plan,
    run_plan,
)

LOOKS = (40, 100, 250, 600, 1000, 2000)
ONE_SIGMA = (float(ndtr(1.0)), float(ndtr(-1.0)))


def rejections(
    looks: tuple[int, ...], boundaries: tuple[int, ...], rate: float | Fraction
) -> list[float | Fraction]:
    """P(reject first at each look), draw by draw with plain sums: an oracle apart from the plan's own walk."""
    state, drawn, found = [rate * 0 + 1], 0, []
    for look, boundary in zip(looks, boundaries, strict=True):
        for _ in range(look - drawn):
            state = [
                (state[s] * (1 - rate) if s < len(state) else 0) + (state[s - 1] * rate if s > 0 else 0)
                for s in range(len(state) + 1)
            ]
        drawn = look
        found.append(sum(state[boundary:], start=rate * 0))
        state = state[:boundary]
    return found


def test_golden_plan() -> None:
    plan = group_sequential_plan(0.84134, 0.001, LOOKS)
    assert plan.boundaries == (41, 96, 230, 535, 882, 1738)
    assert plan.spent == pytest.approx(0.00099337, abs=5e-9)


def test_golden_final_boundaries_with_the_default_looks() -> None:
    for samples, boundary in ((100_000, 84543), (10_000, 8544)):
        plan = group_sequential_plan(ONE_SIGMA[0], 0.001, default_looks(ONE_SIGMA[0], 0.001, samples))
        assert plan.boundaries[-1] == boundary
        assert len(plan.looks) == 20
        assert plan.looks[0] == 40  # where the fixed test first can reject, and this one not yet
        assert plan.boundaries[0] == 41


@pytest.mark.parametrize("rate", [0.125, 0.5, 0.84375, 0.96875])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_the_level_holds_exactly_and_is_sharp(rate: float, alpha: float) -> None:
    """In rational arithmetic: the level by each look is within its budget, one success less would exceed it."""
    looks = (6, 14, 25, 40)
    plan = group_sequential_plan(rate, alpha, looks)
    exact = rejections(looks, plan.boundaries, Fraction(rate))
    assert sum(exact) <= plan.spent <= alpha
    assert float(sum(exact)) == pytest.approx(plan.spent, rel=1e-7, abs=1e-12)
    for k, look in enumerate(looks):
        budget = Fraction(alpha * (look / looks[-1]) ** 0.4)
        assert sum(exact[: k + 1]) <= budget
        looser = (*plan.boundaries[:k], plan.boundaries[k] - 1)
        assert sum(rejections(looks[: k + 1], looser, Fraction(rate))) > budget


@pytest.mark.parametrize("rate", [0.6, ONE_SIGMA[0], 0.97725])
def test_the_level_holds_for_every_smaller_rate(rate: float) -> None:
    plan = group_sequential_plan(rate, 0.001, (50, 200, 500))
    assert sum(rejections(plan.looks, plan.boundaries, rate)) == pytest.approx(plan.spent, rel=1e-6)
    for smaller in (rate - 0.2, rate - 0.02, rate - 0.001):
        assert sum(rejections(plan.looks, plan.boundaries, smaller)) < plan.spent


@pytest.mark.parametrize("n", [1, 40, 1000])
@pytest.mark.parametrize("rate", [0.3, 0.5, ONE_SIGMA[0]])
def test_a_single_look_is_the_fixed_test(n: int, rate: float) -> None:
    plan = group_sequential_plan(rate, 0.001, [n])
    assert plan.boundaries[0] == order_ranks(n, rate, 0.001)[1]
    for p in (rate, 0.9, 1.0):
        assert plan.power(p) == pytest.approx(float(binom.sf(plan.boundaries[0] - 1, n, p)), abs=1e-12)
        assert plan.expected_samples(p) == pytest.approx(n)


def test_power_and_samples_agree_with_simulation_and_with_the_oracle() -> None:
    plan = group_sequential_plan(*ONE_SIGMA[:1], 0.001, default_looks(ONE_SIGMA[0], 0.001, 1000, 8))
    unstopped = GroupSequentialPlan(
        plan.p0, plan.alpha, plan.looks, plan.boundaries, plan.spent, tuple(n + 1 for n in plan.looks)
    )
    rng = np.random.default_rng(0)
    for rate in (0.5, 0.8, 0.86, 0.9, 0.99):
        assert unstopped.power(rate) == pytest.approx(
            sum(rejections(plan.looks, plan.boundaries, rate)), abs=1e-10
        )
        draws = rng.random((4000, plan.looks[-1])) < rate
        counts = np.cumsum(draws, axis=1)[:, np.asarray(plan.looks) - 1]
        outcome = run_plan(plan, counts)
        assert outcome.rejected.mean() == pytest.approx(plan.power(rate), abs=0.03)
        assert outcome.samples.mean() == pytest.approx(plan.expected_samples(rate), rel=0.06)


def test_power_near_the_boundary() -> None:
    """N = 10 000, r / sigma = 2, true rate .982: twenty looks cost .17 of the power of one."""
    p0 = float(ndtr(2.0))
    fixed = group_sequential_plan(p0, 0.001, [10_000])
    spread = group_sequential_plan(p0, 0.001, default_looks(p0, 0.001, 10_000))
    assert fixed.power(0.982) == pytest.approx(float(binom.sf(9817, 10_000, 0.982)), abs=1e-9)
    assert fixed.power(0.982) == pytest.approx(0.579, abs=0.001)
    assert spread.power(0.982) == pytest.approx(0.408, abs=0.001)


def test_futility_costs_no_more_power_than_it_says() -> None:
    p0, looks = ONE_SIGMA[0], default_looks(ONE_SIGMA[0], 0.001, 5000)
    lossless = group_sequential_plan(p0, 0.001, looks, futility=0.0)
    stopping = group_sequential_plan(p0, 0.001, looks, futility=0.01)
    assert lossless.boundaries == stopping.boundaries
    unstopped = GroupSequentialPlan(
        p0, 0.001, looks, lossless.boundaries, lossless.spent, tuple(n + 1 for n in looks)
    )
    for rate in (p0, 0.85, 0.86, 0.87, 0.9):
        assert lossless.power(rate) == pytest.approx(unstopped.power(rate), abs=1e-12)
        assert 0.0 <= lossless.power(rate) - stopping.power(rate) <= 0.01
    # What it buys: a hopeless image stops after a few hundred draws, not when all hope is arithmetically lost.
    assert stopping.expected_samples(0.7) < 200 < 2000 < lossless.expected_samples(0.7)


def test_curtailment_is_where_no_rejection_is_left() -> None:
    plan = group_sequential_plan(0.8, 0.01, (30, 60, 100), futility=0.0)
    needed = plan.boundaries[-1]
    assert plan.futility == (min(31, 101 - needed), min(61, 101 - needed), 101 - needed)


def test_run_plan_stops_where_it_says() -> None:
    plan = GroupSequentialPlan(0.5, 0.1, (4, 8, 12), (5, 8, 11), 0.1, (3, 4, 2))
    counts = np.array([[4, 8, 12], [1, 8, 12], [3, 5, 9], [3, 4, 8], [2, 5, 11]])
    outcome = run_plan(plan, counts)
    assert outcome.rejected.tolist() == [True, False, False, False, True]
    assert outcome.samples.tolist() == [8, 4, 12, 8, 12]
    assert outcome.look.tolist() == [1, 0, 2, 1, 2]


def test_default_looks_rise_to_the_last_draw() -> None:
    for samples in (40, 41, 60, 10_000):
        looks = default_looks(ONE_SIGMA[0], 0.001, samples)
        assert looks[-1] == samples
        assert all(a < b for a, b in pairwise(looks))
        assert len(looks) <= 20
    assert default_looks(ONE_SIGMA[0], 0.001, 10_000, 1) == (10_000,)
    rounded = default_looks(ONE_SIGMA[0], 0.001, 10_020, multiple=50)
    assert all(look % 50 == 0 for look in rounded[:-1])
    assert rounded[-1] == 10_020
    with pytest.raises(InputError, match="need at least 40 draws"):
        default_looks(ONE_SIGMA[0], 0.001, 39)


def test_fewest_draws_is_the_fewest_of_the_fixed_test() -> None:
    for ratio in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0):
        fewest = fewest_draws(float(ndtr(ratio)), 0.001, complement=float(ndtr(-ratio)))
        assert fewest == min_samples(ratio, 1.0, 0.001)
    assert fewest_draws(0.5, 2.0**-10) == 10


def test_digits_near_one_are_kept_by_the_complement() -> None:
    ratio, alpha = 6.5, 0.001  # a failure in 2.5e10: 1 - p0 read from p0 is off in the sixth digit
    rate = float(ndtr(-ratio))
    looks = (int(5e10), int(2e11))
    plan = group_sequential_plan(float(ndtr(ratio)), alpha, looks, complement=rate)
    failures = [look - boundary for look, boundary in zip(looks, plan.boundaries, strict=True)]
    assert failures[0] == -1
    assert failures[1] == int(binom.ppf(alpha, looks[1], rate)) - 1 >= 0
    assert plan.spent == pytest.approx(float(binom.cdf(failures[1], looks[1], rate)), rel=1e-8)


def test_plans_are_fast_and_cached() -> None:
    looks = default_looks(0.8, 0.0011, 100_000)
    start = time.perf_counter()
    plan = group_sequential_plan(0.8, 0.0011, looks)
    assert time.perf_counter() - start < 1.0
    assert group_sequential_plan(0.8, 0.0011, list(looks)) is plan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p0": 1.0}, "p0: got"),
        ({"alpha": 0.5}, "alpha: got"),
        ({"looks": []}, "looks: got"),
        ({"looks": [10, 10]}, "rising"),
        ({"spending_power": 0.0}, "spending_power: got"),
        ({"futility": -0.1}, "futility: got"),
        ({"complement": 0.3}, "complement: got"),
    ],
)
def test_what_makes_no_plan_is_refused(arguments: dict[str, object], message: str) -> None:
    options = {"p0": 0.8, "alpha": 0.01, "looks": [10, 20]} | arguments
    with pytest.raises(InputError, match=message):
        group_sequential_plan(**options)


def test_counts_that_fit_no_look_are_refused() -> None:
    plan = group_sequential_plan(0.8, 0.01, [10, 20])
    with pytest.raises(InputError, match="one count a look"):
        run_plan(plan, np.array([[1, 2, 3]]))
    with pytest.raises(InputError, match="above the number"):
        run_plan(plan, np.array([[11, 12]]))
    with pytest.raises(InputError, match="success rate"):
        plan.power(math.inf)
