from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy.stats import binom

from certify.checks import InputError
from certify.confidence import CONFIDENCE_METHODS, auroc_confidence, failure_count, tpr_fpr_confidence
from certify.metrics import auroc, tpr_fpr_at_threshold
from certify.types import ScoreBounds

INF = np.inf


def case(seed: int, anomalies: int, normals: int) -> tuple[ScoreBounds, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.r_[np.ones(anomalies, int), np.zeros(normals, int)]
    middle = rng.integers(0, 4, labels.size) + 2.0 * labels
    lower = np.where(rng.random(labels.size) < 0.1, -INF, middle - rng.integers(0, 2, labels.size))
    upper = np.where(rng.random(labels.size) < 0.1, INF, middle + rng.integers(0, 2, labels.size))
    return ScoreBounds(lower, upper), labels


@pytest.mark.parametrize(
    ("bounds", "alpha_per_image", "count"),
    [(500, 1e-3, 4), (1000, 1e-3, 6), (10_000, 1e-3, 22), (1000, 1e-4, 2), (10_000, 1e-4, 6)],
)
def test_golden_failure_counts(bounds: int, alpha_per_image: float, count: int) -> None:
    assert failure_count(bounds, alpha_per_image, 0.0005) == count
    assert binom.sf(count, bounds, alpha_per_image) <= 0.0005 < binom.sf(count - 1, bounds, alpha_per_image)


def test_independent_failures_are_fewer_than_the_binomial_count() -> None:
    """Exact law of the number of failures of unequal probabilities, each at most alpha_per_image."""
    rng, law = np.random.default_rng(0), np.ones(1)
    for rate in 0.02 * rng.random(60):
        law = np.convolve(law, [1.0 - rate, rate])
    count = failure_count(60, 0.02, 0.01)
    assert law[count + 1 :].sum() <= 0.01


def test_union_is_the_metric_itself_and_checks_the_split() -> None:
    bounds, labels = case(0, 10, 14)
    result = auroc_confidence(bounds, labels, method="union", alpha=0.001, alpha_per_image=0.001 / 24)
    assert (result.value, result.correction, result.alpha) == (auroc(bounds, labels), 0.0, 0.001)
    assert result.statement == (
        "With probability at least 1 - 0.001 over the certification noise, no attack within the radius lowers "
        "the AUROC of the smoothed detector on these images below the value."
    )
    with pytest.raises(InputError, match=r"needs at most 4\.16667e-05"):
        auroc_confidence(bounds, labels, method="union", alpha=0.001, alpha_per_image=0.001)


def test_failures_at_the_union_level_cost_nothing() -> None:
    bounds, labels = case(1, 10, 14)
    result = auroc_confidence(bounds, labels, method="failures", alpha=0.001, alpha_per_image=0.001 / 24)
    assert (result.value, result.correction) == (auroc(bounds, labels), 0.0)


def lose(bounds: ScoreBounds, labels: np.ndarray, wrong: tuple[int, ...]) -> float:
    """The AUROC when these ends were wrong and their images score as badly as can be."""
    lower, upper = bounds.lower.copy(), bounds.upper.copy()
    lower[list(wrong)], upper[list(wrong)] = -INF, INF
    return float(auroc(ScoreBounds(lower, upper), labels))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("anomalies", "normals"), [(7, 7), (3, 11), (10, 2)])
def test_no_injected_failures_go_below_the_claim(seed: int, anomalies: int, normals: int) -> None:
    """All sets of k wrong ends (k_a and k_n where the classes are counted apart), one after the other."""
    bounds, labels = case(seed, anomalies, normals)
    alpha, per_image = 0.05, 0.02
    claim = auroc_confidence(bounds, labels, method="failures", alpha=alpha, alpha_per_image=per_image)
    together = failure_count(anomalies + normals, per_image, alpha)
    apart = failure_count(anomalies, per_image, alpha / 2), failure_count(normals, per_image, alpha / 2)
    positive, negative = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    if together / min(anomalies, normals) <= apart[0] / anomalies + apart[1] / normals:
        wrong = list(combinations(range(len(labels)), together))
    else:
        pairs = product(combinations(positive, apart[0]), combinations(negative, apart[1]))
        wrong = [tuple(map(int, (*a, *b))) for a, b in pairs]
    worst = min(lose(bounds, labels, indices) for indices in wrong)
    assert claim.value <= worst + 1e-12
    assert claim.value >= 2 * worst - auroc(bounds, labels) - 1e-12  # pairs counted twice at the most
    assert claim.value + claim.correction == pytest.approx(auroc(bounds, labels))


def test_failures_are_counted_apart_where_one_class_is_small() -> None:
    labels = np.r_[np.ones(10, int), np.zeros(10_000, int)]
    bounds = ScoreBounds.exact(labels + 0.0)
    claim = auroc_confidence(bounds, labels, method="failures", alpha=0.001, alpha_per_image=0.001)
    anomalies, normals = failure_count(10, 0.001, 0.0005), failure_count(10_000, 0.001, 0.0005)
    assert claim.value == pytest.approx(1.0 - anomalies / 10 - normals / 10_000)
    balanced = np.r_[np.ones(500, int), np.zeros(500, int)]
    claim = auroc_confidence(
        ScoreBounds.exact(balanced + 0.0), balanced, method="failures", alpha=0.001, alpha_per_image=0.001
    )
    assert claim.value == pytest.approx(1.0 - 5 / 500)  # 5 of both; counted apart they would be 4 and 4


def exact_population_failure(m: int, n: int, p: float, q: float, a: float, alpha: float) -> float:
    """Exact probability that the population bound exceeds the truth, for scores 0 and 1.

    An anomaly scores 1 with rate p, a normal image 1 with rate q; an anomaly at 0 is shown at 1, and a normal
    image at 1 is shown at 0, with probability a each: the worst that ends of level a can do.
    """
    true = p * (1 - q) + 0.5 * (p * q + (1 - p) * (1 - q))
    shown_p, shown_q = p + (1 - p) * a, q * (1 - a)
    labels, failure = np.r_[np.ones(m, int), np.zeros(n, int)], 0.0
    for i, j in product(range(m + 1), range(n + 1)):
        shown = np.r_[np.arange(m) < i, np.arange(n) < j].astype(float)
        claim = auroc_confidence(
            ScoreBounds.exact(shown), labels, method="population", alpha=alpha, alpha_per_image=a
        )
        weight = binom.pmf(i, m, shown_p) * binom.pmf(j, n, shown_q)
        failure += weight * (claim.value > true + 1e-12)
    return failure


@pytest.mark.parametrize(("p", "q"), [(0.9, 0.05), (0.6, 0.6), (0.5, 0.0), (1.0, 0.4)])
def test_the_population_bound_holds_by_exact_summation(p: float, q: float) -> None:
    for a in (0.0, 0.01, 0.3):
        assert exact_population_failure(6, 9, p, q, a, 0.1) <= 0.1


def test_the_population_bound_is_hoeffdings_or_better() -> None:
    bounds, labels = case(3, 40, 60)
    plain = auroc(bounds, labels)
    claim = auroc_confidence(bounds, labels, method="population", alpha=0.01, alpha_per_image=0.001)
    assert plain - np.sqrt(np.log(100) / 80) - 0.002 <= claim.value < plain - 0.002
    assert "expected on images drawn like these" in claim.statement
    perfect = ScoreBounds.exact(labels + 0.0)
    claim = auroc_confidence(perfect, labels, method="population", alpha=0.01, alpha_per_image=0.001)
    assert claim.value == pytest.approx((0.01 ** (1 / 40) - 0.002) / 0.998)


@pytest.mark.parametrize("side", ["clean", "in", "out", "both"])
@pytest.mark.parametrize("method", CONFIDENCE_METHODS)
def test_each_side_reads_one_end_an_image(side, method) -> None:
    bounds, labels = case(5, 12, 15)
    lower = np.array([bounds.lower, bounds.lower - 1.0])
    upper = np.array([bounds.upper, bounds.upper + 1.0])
    radii, options = ScoreBounds(lower, upper), {"method": method, "alpha": 0.04, "alpha_per_image": 0.001}
    claim = auroc_confidence(radii, labels, side, bounds, **options)
    assert claim.value.shape == claim.correction.shape == (2,)
    assert (claim.value + claim.correction) == pytest.approx(auroc(radii, labels, side, bounds))
    singles = [auroc_confidence(radii.at(row), labels, side, bounds, **options).value for row in (0, 1)]
    assert claim.value.tolist() == singles
    tpr, fpr = tpr_fpr_confidence(radii, labels, 2.0, side, bounds, **options)
    plain = tpr_fpr_at_threshold(radii, labels, 2.0, side, bounds)
    assert tpr.value + tpr.correction == pytest.approx(plain[0])
    assert fpr.value - fpr.correction == pytest.approx(plain[1])
    # ends that the side does not read change nothing
    blind = ScoreBounds(np.where(labels == 1, radii.lower, -INF), np.where(labels == 0, radii.upper, INF))
    assert np.array_equal(auroc_confidence(blind, labels, side, bounds, **options).value, claim.value)


@pytest.mark.parametrize("seed", range(8))
def test_rates_survive_all_injected_failures(seed: int) -> None:
    bounds, labels = case(seed, 9, 8)
    claims = tpr_fpr_confidence(bounds, labels, 2.0, method="failures", alpha=0.05, alpha_per_image=0.02)
    flagged = bounds.lower[labels == 1] > 2.0, bounds.upper[labels == 0] > 2.0
    k_anomalies, k_normals = failure_count(9, 0.02, 0.025), failure_count(8, 0.02, 0.025)
    assert claims[0].value == min(
        np.delete(flagged[0], list(wrong)).sum() / 9 for wrong in combinations(range(9), k_anomalies)
    )
    assert claims[1].value == max(
        (np.delete(flagged[1], list(wrong)).sum() + k_normals) / 8
        for wrong in combinations(range(8), k_normals)
    )


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.8, 0.97])
@pytest.mark.parametrize("a", [0.0, 0.001, 0.05])
def test_population_rates_hold_by_exact_summation(rate: float, a: float) -> None:
    """A true rate is shown as worse as ends of level a allow: each wrong decision looks right with rate a."""
    m, n, alpha = 30, 25, 0.02
    labels = np.r_[np.ones(m, int), np.zeros(n, int)]
    options = {"method": "population", "alpha": alpha, "alpha_per_image": a}

    def claims(i: int, j: int) -> tuple[float, float]:
        shown = ScoreBounds.exact(np.r_[np.arange(m) < i, np.arange(n) < j].astype(float))
        tpr, fpr = tpr_fpr_confidence(shown, labels, 0.5, **options)
        return tpr.value, fpr.value

    tpr_wrong = np.array([claims(i, 0)[0] > rate for i in range(m + 1)])
    fpr_wrong = np.array([claims(0, j)[1] < rate for j in range(n + 1)])
    assert tpr_wrong @ binom.pmf(np.arange(m + 1), m, rate + (1 - rate) * a) <= alpha / 2
    assert fpr_wrong @ binom.pmf(np.arange(n + 1), n, rate * (1 - a)) <= alpha / 2


def test_rates_of_the_union_are_those_of_the_bounds() -> None:
    bounds, labels = case(6, 10, 10)
    claims = tpr_fpr_confidence(bounds, labels, 2.0, method="union", alpha=0.02, alpha_per_image=0.001)
    assert tuple(claim.value for claim in claims) == tpr_fpr_at_threshold(bounds, labels, 2.0)
    assert claims[1].statement.endswith(
        "raises the false-positive rate of the smoothed detector on these images above the value."
    )


def test_bounds_without_noise_have_no_error_probability() -> None:
    bounds, labels = case(7, 10, 10)
    for method in ("union", "failures"):
        claim = auroc_confidence(
            bounds, labels, "in", bounds, method=method, alpha=0.001, alpha_per_image=0.0
        )
        assert (claim.value, claim.alpha) == (auroc(bounds, labels), 0.0)
        assert claim.statement == (
            "No attack on normal images within the radius lowers the AUROC of the detector on these images "
            "below the value."
        )
    claim = auroc_confidence(bounds, labels, method="population", alpha=0.001, alpha_per_image=0.0)
    assert "over the draw of the test images, no attack" in claim.statement


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha: got 0.0"),
        ({"alpha": 0.5}, "below 0.5"),
        ({"alpha_per_image": -0.1}, "alpha_per_image"),
        ({"alpha_per_image": 0.5}, "alpha_per_image"),
        ({"side": "in"}, "unattacked"),
    ],
)
def test_bad_arguments_are_refused(change, message: str) -> None:
    bounds, labels = case(0, 5, 5)
    options = {"method": "failures", "alpha": 0.01, "alpha_per_image": 0.001}
    with pytest.raises(InputError, match=message):
        auroc_confidence(bounds, labels, **(options | change))
    with pytest.raises(InputError, match="threshold"):
        tpr_fpr_confidence(bounds, labels, INF, **options)
