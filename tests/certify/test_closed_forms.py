"""Certificates against scores whose worst case is known in closed form.

The draws are the quantiles (i - 1/2) / n of the exact score distribution, so nothing here depends on luck.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import binom, ncx2

from certify.bounds import clopper_pearson_upper, order_ranks
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


@pytest.mark.parametrize("percentile", [0.3, 0.5, 0.7])
def test_no_image_of_the_ball_leaves_the_bounds_of_a_squared_distance(percentile: float) -> None:
    """Every distance between the nearest and the farthest is that of some attacked image."""
    dimension, distance, radius = 16, 0.6, 0.25
    draws = SIGMA**2 * ncx2.ppf(LEVELS, dimension, (distance / SIGMA) ** 2)[None]
    bounds = certify_scores(draws, SIGMA, [radius], ALPHA, percentile=percentile)
    attacked = np.linspace(distance - radius, distance + radius, 21)
    scores = SIGMA**2 * ncx2.ppf(percentile, dimension, (attacked / SIGMA) ** 2)
    assert (bounds.lower[0, 0] <= scores).all()
    assert (scores <= bounds.upper[0, 0]).all()
    assert bounds.upper[0, 0] - bounds.lower[0, 0] < 3.0 * (scores[-1] - scores[0])  # and it is no idle one


def test_a_normal_inside_a_ball_keeps_its_decision_up_to_less_than_the_true_radius() -> None:
    dimension, distance, edge = 16, 0.1, 1.3
    draws = SIGMA**2 * ncx2.ppf(LEVELS, dimension, (distance / SIGMA) ** 2)[None]
    radius = certified_radius(draws, edge**2, SIGMA, ALPHA, "normal")[0]
    true_radius = brentq(
        lambda r: ncx2.cdf((edge / SIGMA) ** 2, dimension, ((distance + r) / SIGMA) ** 2) - 0.5, 0.0, 5.0
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


@pytest.mark.parametrize("percentile", [0.3, 0.5, 0.7])
def test_the_split_certificate_holds_for_every_image_of_the_ball(percentile: float) -> None:
    """R(y) = c y: the score's law depends on |x'| alone, which takes all values within r of |x|."""
    dimension, c, size = 48, 0.8, 3.0

    def quantile(level: np.ndarray | float, norm_x: np.ndarray | float) -> np.ndarray:
        return c * SIGMA * np.sqrt(ncx2.ppf(level, dimension, ((1 - c) * norm_x / (c * SIGMA)) ** 2))

    bounds = certify_scores(quantile(LEVELS, size)[None], SIGMA, RADII, ALPHA, 1.0, percentile)
    for row, radius in enumerate(RADII):
        scores = quantile(percentile, size + np.linspace(-radius, radius, 21))
        assert (bounds.lower[row, 0] <= scores).all()
        assert (scores <= bounds.upper[row, 0]).all()


def test_the_split_certificate_holds_for_a_small_network() -> None:
    """No closed form, so a search: R is a random two-layer ReLU network, images of the ball are drawn and climbed."""
    rng = np.random.default_rng(0)
    dimension, radius, n = 16, 0.3, 4000
    first, second = rng.normal(size=(2, dimension, dimension)) / np.sqrt(dimension)
    image, noise = rng.random(dimension), rng.normal(size=(n, dimension)) * SIGMA

    def scores(x: np.ndarray) -> np.ndarray:
        return np.linalg.norm(x - np.maximum((x + noise) @ first, 0.0) @ second, axis=1)

    bounds = certify_scores(scores(image)[None], SIGMA, [radius], ALPHA, lipschitz=1.0)
    reached = [np.median(scores(image))]
    for sign in (1.0, -1.0):
        for _ in range(10):
            point = image + radius * _unit(rng.normal(size=dimension))
            for _ in range(30):
                step = image + radius * _unit(point - image + 0.3 * rng.normal(size=dimension))
                point = max(point, step, key=lambda x: sign * np.median(scores(x)))
            reached.append(np.median(scores(point)))
    assert bounds.lower[0, 0] <= min(reached) < reached[0] < max(reached) <= bounds.upper[0, 0]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize("radius", [0.0, 0.1, 0.3])
def test_coverage_of_rounded_scores_by_exact_sums(radius: float, alpha: float) -> None:
    """A rounded linear score has atoms: z_(k) exceeds the atom a exactly if fewer than k draws are at most a."""
    atoms, mean, p_low = np.arange(-40, 41) / 10, 0.33, float(ndtr(-radius / SIGMA))
    below = ndtr((atoms + 0.05 - mean) / SIGMA)  # P(score <= atom)
    place = int(np.argmax(below >= p_low))  # the atom at h_{p_l}
    for n in (1, 20, 77, 200):
        lower, upper = order_ranks(n, p_low, alpha)
        assert binom.cdf(lower - 1, n, below[place]) <= alpha
        if upper <= n:
            assert binom.sf(upper - 1, n, below[place - 1]) <= alpha


@pytest.mark.parametrize("side", ["anomalous", "normal"])
def test_bounds_and_radii_are_one_test_at_all_thresholds(side) -> None:
    """At fixed r one event decides every threshold: by rank, by radius, and by Clopper-Pearson on the votes."""
    scores = np.round(np.random.default_rng(5).normal(0.2, 0.5, size=(3, 200)), 2)
    n, alpha = scores.shape[1], 0.01
    for radius in (0.01, 0.1, 0.2, 0.35):
        bounds = certify_scores(scores, SIGMA, [radius], alpha)
        level = float(ndtr(-radius / SIGMA))
        for threshold in np.unique(scores):
            by_radius = certified_radius(scores, float(threshold), SIGMA, alpha, side) >= radius
            if side == "anomalous":
                by_rank, against = bounds.lower[0] > threshold, (scores <= threshold).sum(axis=1)
            else:
                by_rank, against = bounds.upper[0] <= threshold, (scores > threshold).sum(axis=1)
            by_votes = clopper_pearson_upper(against, n, alpha) <= level
            assert np.array_equal(by_rank, by_radius)
            assert np.array_equal(by_rank, by_votes)
