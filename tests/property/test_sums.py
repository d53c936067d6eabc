"""What holds for sums over noise levels whatever the draws are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from certify.sums import NoiseLevel, certify_sum, sum_bounds, sum_radius
from certify.types import ScoreBounds

scores = st.floats(-100.0, 100.0, allow_subnormal=False)
weights = st.floats(0.01, 10.0)
levels = st.lists(
    st.builds(
        NoiseLevel, st.floats(0.1, 2.0), weights, st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.2, 0.8)
    ),
    min_size=1,
    max_size=3,
)
quick = settings(max_examples=30, deadline=None)


@quick
@given(st.lists(st.tuples(scores, scores, weights), min_size=1, max_size=4))
def test_a_sum_of_bounds_encloses_the_exact_sum(parts) -> None:
    ends = [sorted(pair) for *pair, _ in parts]
    bounds = sum_bounds(
        [ScoreBounds(np.array([low]), np.array([high])) for low, high in ends], [part[2] for part in parts]
    )
    for computed, side, sign in ((bounds.lower[0], 0, 1), (bounds.upper[0], 1, -1)):
        exact = sum(
            Fraction(weight) * Fraction(end[side]) for end, (*_, weight) in zip(ends, parts, strict=True)
        )
        assert sign * Fraction(float(computed)) <= sign * exact
        assert abs(float(exact) - computed) <= 1e-11 * (1.0 + sum(w * 100.0 for *_, w in parts))


@quick
@given(st.data(), levels, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_bounds_widen_with_radius_and_confidence_and_agree_with_the_radius(data, terms, small, extra) -> None:
    draws = [data.draw(arrays(np.float64, (2, 60), elements=scores)) for _ in terms]
    radii = [small, small + extra]
    bounds, surer = (certify_sum(draws, terms, radii, alpha) for alpha in (0.05, 0.001))
    assert (bounds.lower[1] <= bounds.lower[0]).all()
    assert (bounds.upper[1] >= bounds.upper[0]).all()
    assert (surer.lower <= bounds.lower).all()
    assert (surer.upper >= bounds.upper).all()
    threshold = data.draw(scores)
    above, below = (sum_radius(draws, terms, threshold, 0.05, side) for side in ("anomalous", "normal"))
    assert ((above == 0.0) | (below == 0.0)).all()
    found = certify_sum(draws, terms, [*above, *below], 0.05)
    for image in range(2):
        assert above[image] == 0.0 or found.lower[image, image] > threshold
        assert below[image] == 0.0 or found.upper[2 + image, image] <= threshold
