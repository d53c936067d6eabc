"""Properties of bounds, radii and metrics on generated inputs."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from certify.bounds import clopper_pearson_lower, clopper_pearson_upper, order_ranks
from certify.certificate import certified_radius, certify_scores
from certify.metrics import auroc, average_precision, fpr_at_tpr
from certify.types import ScoreBounds

counts = st.integers(1, 400)
levels = st.sampled_from([0.1, 0.01, 0.001, 1e-5])
rates = st.floats(0.001, 0.999)
draws = arrays(np.float64, (2, 60), elements=st.integers(-5, 5).map(float))
sides = st.sampled_from(["anomalous", "normal"])
quick = settings(max_examples=80, deadline=None)


@quick
@given(counts, rates, levels)
def test_ranks_satisfy_their_definition_and_mirror_each_other(n: int, quantile: float, alpha: float) -> None:
    lower, upper = order_ranks(n, quantile, alpha)
    assert 0 <= lower < upper <= n + 1
    if lower:
        assert binom.cdf(lower - 1, n, quantile) <= alpha
    assert lower == n or binom.cdf(lower, n, quantile) > alpha
    if upper <= n:
        assert binom.sf(upper - 1, n, quantile) <= alpha * (1 + 1e-12)
    assert order_ranks(n, 1.0 - quantile, alpha)[0] in (n + 1 - upper, n + 1 - upper - 1, n + 1 - upper + 1)


@quick
@given(counts, levels, st.data())
def test_clopper_pearson_inverts_the_rank_test(n: int, alpha: float, data: st.DataObject) -> None:
    """CPU(k - 1) <= q exactly if z_(k) is a valid lower bound of h_q: interval and radius are one test."""
    quantile = data.draw(rates)
    count = data.draw(st.integers(1, n))
    bound = clopper_pearson_upper(count - 1, n, alpha)
    assume(not math.isclose(bound, quantile, rel_tol=1e-9))
    assert (bound <= quantile) == (count <= order_ranks(n, quantile, alpha)[0])
    assert clopper_pearson_lower(n - count + 1, n, alpha) + bound == 1.0 or math.isclose(
        clopper_pearson_lower(n - count + 1, n, alpha), 1.0 - bound, abs_tol=1e-12
    )


@quick
@given(draws, st.floats(-6.0, 6.0), st.floats(0.001, 0.8), st.sampled_from([0.0, 0.3, 2.0]), sides)
def test_radius_and_bounds_are_dual(
    z: np.ndarray, threshold: float, r: float, lipschitz: float, side
) -> None:
    radius = certified_radius(z, threshold, 0.25, 0.01, side, lipschitz)
    assume(not np.isclose(radius, r, rtol=1e-9).any())
    bounds = certify_scores(z, 0.25, [r], 0.01, lipschitz)
    holds = bounds.lower[0] > threshold if side == "anomalous" else bounds.upper[0] <= threshold
    assert np.array_equal(holds, radius >= r)


@quick
@given(draws, st.floats(0.0, 0.5))
def test_bounds_follow_increasing_maps_of_the_score(z: np.ndarray, r: float) -> None:
    plain, mapped = certify_scores(z, 0.25, [r], 0.01), certify_scores(np.exp(z), 0.25, [r], 0.01)
    assert np.array_equal(np.exp(plain.lower), np.where(np.isinf(plain.lower), 0.0, mapped.lower))
    assert np.array_equal(np.exp(plain.upper), mapped.upper)


@quick
@given(
    arrays(np.float64, 12, elements=st.integers(-3, 3).map(float)),
    arrays(np.float64, 12, elements=st.sampled_from([0.0, 1.0, 2.0, np.inf])),
    arrays(np.float64, 12, elements=st.sampled_from([0.0, 1.0, np.inf])),
    st.integers(1, 11),
)
def test_wider_bounds_never_raise_a_metric(
    middle: np.ndarray, width: np.ndarray, more: np.ndarray, anomalies: int
) -> None:
    labels = np.r_[np.ones(anomalies, int), np.zeros(12 - anomalies, int)]
    narrow = ScoreBounds(middle - width, middle + width)
    wide = ScoreBounds(narrow.lower - more, narrow.upper + more)
    for metric, sign in ((auroc, 1), (average_precision, 1), (fpr_at_tpr, -1)):
        values = {side: sign * metric(wide, labels, side, narrow) for side in ("both", "in", "out", "clean")}
        assert values["both"] <= min(values["in"], values["out"])
        assert max(values["in"], values["out"]) <= values["clean"]
        assert values["clean"] == sign * metric(narrow, labels)
        assert 0.0 <= abs(values["both"]) <= 1.0
