"""Certificates against scores whose worst case is known in closed form.

The draws are the quantiles (i - 1/2) / n of the exact score distribution, so nothing here depends on luck.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtri
from scipy.stats import ncx2

from certify.certificate import certified_radius, certify_scores

N, SIGMA, ALPHA = 20_000, 0.25, 0.001
LEVELS = (np.arange(N) + 0.5) / N
RADII = (0.0, 0.1, 0.25, 0.5)


def test_linear_score_is_certified_exactly_up_to_confidence() -> None:
    """A = w.x + b: h_{p_l} IS the worst case, so only the ranks' slack is left between bound and truth."""
    norm_w, mean = 3.0, 1.0
    draws = mean + SIGMA * norm_w * ndtri(LEVELS)[None]
    for percentile in (0.5, 0.6):
        smoothed = mean + SIGMA * norm_w * ndtri(percentile)
        bounds = certify_scores(draws, SIGMA, RADII, ALPHA, percentile=percentile)
        for row, radius in enumerate(RADII):
            worst, best = smoothed - radius * norm_w, smoothed + radius * norm_w
            assert worst - 0.15 < bounds.lower[row, 0] <= worst
            assert best <= bounds.upper[row, 0] < best + 0.15


def test_half_space_radius_is_the_distance_up_to_confidence() -> None:
    distance = 0.3
    draws = (distance + SIGMA * ndtri(LEVELS))[None]
    radius = certified_radius(draws, 0.0, SIGMA, ALPHA, "anomalous")[0]
    assert distance - 0.01 < radius <= distance


@pytest.mark.parametrize("distance", [0.2, 1.0])
def test_squared_distance_to_a_centre(distance: float) -> None:
    dimension = 16
    draws = SIGMA**2 * ncx2.ppf(LEVELS, dimension, (distance / SIGMA) ** 2)[None]
    bounds = certify_scores(draws, SIGMA, RADII, ALPHA)
    for row, radius in enumerate(RADII):
        nearest, farthest = max(distance - radius, 0.0), distance + radius
        worst = SIGMA**2 * ncx2.ppf(0.5, dimension, (nearest / SIGMA) ** 2)
        best = SIGMA**2 * ncx2.ppf(0.5, dimension, (farthest / SIGMA) ** 2)
        assert bounds.lower[row, 0] <= worst
        assert best <= bounds.upper[row, 0]


def test_ball_radius_stays_below_the_true_one() -> None:
    dimension, distance, edge = 16, 1.5, 1.0
    draws = SIGMA**2 * ncx2.ppf(LEVELS, dimension, (distance / SIGMA) ** 2)[None]
    radius = certified_radius(draws, edge**2, SIGMA, ALPHA, "anomalous")[0]
    true_radius = brentq(
        lambda r: ncx2.sf((edge / SIGMA) ** 2, dimension, ((distance - r) / SIGMA) ** 2) - 0.5, 0.0, distance
    )
    assert 0.0 < radius <= true_radius


def test_linear_denoiser_under_the_split_certificate() -> None:
    """S = ||x - c (x + noise)|| with L = 1; golden values at 3072 dimensions."""
    dimension, c, size, radius = 3072, 0.8, 25.0, 0.5

    def quantile(level: np.ndarray | float, norm_x: float) -> np.ndarray:
        return c * SIGMA * np.sqrt(ncx2.ppf(level, dimension, ((1 - c) * norm_x / (c * SIGMA)) ** 2))

    median, worst, best = (float(quantile(0.5, size + shift)) for shift in (0.0, -radius, radius))
    assert [round(v, 3) for v in (median, worst, best)] == [12.159, 12.119, 12.201]
    bounds = certify_scores(quantile(LEVELS, size)[None], SIGMA, [radius], ALPHA, lipschitz=1.0)
    lower, upper = bounds.lower[0, 0], bounds.upper[0, 0]
    # The population bounds [11.355, 12.966], widened by the slack of 20 000 draws.
    assert 11.34 < lower <= 11.355
    assert 12.966 <= upper < 12.98


def test_the_split_certificate_is_tight_and_needs_its_lipschitz_term() -> None:
    """R(y) = x + (C - <y - x, e>) e lets an attack along e gain r twice: by reference and by noise."""
    height, radius = 5.0, 0.4
    draws = (height - SIGMA * ndtri(LEVELS))[None]
    attacked_median = height - 2 * radius
    split = certify_scores(draws, SIGMA, [radius], ALPHA, lipschitz=1.0)
    assert attacked_median - 0.05 < split.lower[0, 0] <= attacked_median
    plain = certify_scores(draws, SIGMA, [radius], ALPHA)
    assert (
        plain.lower[0, 0] > attacked_median
    )  # as a function of y alone the score would be certified falsely
