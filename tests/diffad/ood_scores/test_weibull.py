from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import weibull_min

from certify.checks import InputError
from diffad.ood_scores.weibull import TRANSLATION, fit_tail, fit_weibull


@given(st.floats(0.5, 50.0), st.floats(1e-3, 1e5), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_it_is_the_likeliest_law(shape: float, scale: float, seed: int) -> None:
    values = scale * np.random.default_rng(seed).weibull(shape, 40)
    found, log_scale = fit_weibull(values)

    def likelihood(c: float, s: float) -> float:
        return float(weibull_min.logpdf(values, c, scale=math.exp(s)).sum())

    best = likelihood(found, log_scale)
    for factor in (0.99, 1.01):
        assert likelihood(found * factor, log_scale) < best
        assert likelihood(found, log_scale + math.log(factor) / found) < best


def test_it_finds_the_law_of_many_values() -> None:
    values = 3.0 * np.random.default_rng(0).weibull(2.0, 200_000)
    shape, log_scale = fit_weibull(values)
    assert shape == pytest.approx(2.0, rel=1e-2)
    assert math.exp(log_scale) == pytest.approx(3.0, rel=1e-2)


def test_the_tail_is_the_largest_values_moved_to_the_translation() -> None:
    values = np.random.default_rng(0).gamma(3.0, size=80)
    shape, log_scale, least = fit_tail(values, 20)
    tail = np.sort(values)[-20:]
    assert least == tail[0]
    assert (shape, log_scale) == fit_weibull(tail - tail[0] + TRANSLATION)
    assert fit_tail(values[:10], 20)[2] == values[:10].min()


@pytest.mark.parametrize("values", [[1.0, 2.0], [3.0] * 9, []])
def test_a_tail_without_a_law_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match=r"weibull: got a tail of"):
        fit_tail(np.array(values), 20)
