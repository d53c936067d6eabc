"""Properties of sequential tests and of adaptive sampling on generated inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from certify.adaptive_auroc import adaptive_bounds
from certify.bounds import clopper_pearson_lower, order_ranks
from certify.certificate import certify_scores
from certify.metrics import auroc
from certify.mixture import confidence_sequence_lower, mixture_boundary, mixture_log_wealth
from certify.sequential import group_sequential_plan, run_plan

rates = st.floats(0.01, 0.99)
levels = st.sampled_from([0.2, 0.05, 0.001, 1e-6])
schedules = st.sets(st.integers(1, 300), min_size=1, max_size=8).map(lambda looks: tuple(sorted(looks)))
quick = settings(max_examples=60, deadline=None)


class Drawn:
    """Draws that lie ready."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores, self.asked = scores, [0] * len(scores)

    def extend(self, targets: Mapping[int, int]) -> None:
        for row, n in targets.items():
            self.asked[row] = max(self.asked[row], n)

    def draws(self, row: int) -> np.ndarray:
        return self.scores[row, : self.asked[row]]


@quick
@given(rates, levels, schedules, st.sampled_from([0.4, 1.0, 3.0]))
def test_plans_keep_their_level_and_never_beat_the_fixed_test(
    p0: float, alpha: float, looks: tuple[int, ...], power: float
) -> None:
    plan = group_sequential_plan(p0, alpha, looks, spending_power=power)
    assert plan.spent <= alpha
    assert plan.power(p0) <= plan.spent * (1 + 1e-9) + 1e-15
    assert plan.power(p0 * 0.9) <= plan.power(p0) + 1e-15 <= plan.power(min(1.0, p0 * 1.1)) + 2e-15
    for look, boundary, hopeless in zip(looks, plan.boundaries, plan.futility, strict=True):
        assert order_ranks(look, p0, alpha)[1] <= boundary <= look + 1
        assert 0 <= hopeless <= look + 1
    failures = [look - boundary for look, boundary in zip(looks, plan.boundaries, strict=True)]
    assert failures == sorted(failures)
    assert 0.0 < plan.expected_samples(p0) <= looks[-1] * (1 + 1e-9)


@quick
@given(rates, levels, schedules, st.integers(0, 2**32 - 1))
def test_a_plan_stops_at_the_first_look_that_decides(
    p0: float, alpha: float, looks: tuple[int, ...], seed: int
) -> None:
    plan = group_sequential_plan(p0, alpha, looks)
    rng = np.random.default_rng(seed)
    counts = np.cumsum(rng.random((20, looks[-1])) < rng.random((20, 1)), axis=1)[:, np.array(looks) - 1]
    outcome = run_plan(plan, counts)
    for row in range(20):
        for look, n in enumerate(looks):
            rejects = counts[row, look] >= plan.boundaries[look]
            if rejects or n - counts[row, look] >= plan.futility[look] or look == len(looks) - 1:
                assert (outcome.samples[row], outcome.rejected[row]) == (n, rejects)
                break


@quick
@given(st.integers(1, 400), rates, levels, st.data())
def test_the_mixture_needs_more_than_the_fixed_test_and_grows_with_successes(
    n: int, p0: float, alpha: float, data: st.DataObject
) -> None:
    boundary = int(mixture_boundary(n, p0, alpha))
    assert order_ranks(n, p0, alpha)[1] <= boundary <= n + 1
    wealth = mixture_log_wealth(np.arange(n + 1), n, p0)
    assert (np.diff(wealth[np.isfinite(wealth)]) > -1e-9).all()
    count = data.draw(st.integers(0, n))
    lower = float(confidence_sequence_lower(count, n, alpha))
    assert 0.0 <= lower <= clopper_pearson_lower(count, n, alpha) + 1e-9


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.float64, (6, 1), elements=st.integers(-6, 6).map(float)),
    st.booleans(),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.integers(0, 2**32 - 1),
)
def test_adaptive_bounds_are_within_those_of_each_look_alone(
    centres: np.ndarray, rounded: bool, radius: float, seed: int
) -> None:
    """Looking often costs level: at each look the fixed-n bound of the same draws is at least as good."""
    labels = np.array([1, 1, 1, 0, 0, 0])
    scores = centres / 2 + np.random.default_rng(seed).standard_normal((6, 600))
    scores = scores.round() if rounded else scores
    result = adaptive_bounds(
        Drawn(scores), labels, sigma=1.0, radii=[radius], max_samples=600, alpha_per_image=0.01, lipschitz=0.5
    )
    looks = [certify_scores(scores[:, :n], 1.0, [radius], 0.01, 0.5) for n in result.looks]
    best_lower = np.max([bounds.lower[0] for bounds in looks], axis=0)
    best_upper = np.min([bounds.upper[0] for bounds in looks], axis=0)
    assert (result.bounds.lower[0, labels == 1] <= best_lower[labels == 1]).all()
    assert (result.bounds.upper[0, labels == 0] >= best_upper[labels == 0]).all()
    assert set(result.samples.tolist()) <= set(result.looks)
    assert 0.0 <= float(auroc(result.bounds, labels)[0]) <= 1.0
