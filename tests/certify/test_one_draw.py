from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import beta, binom

from certify.checks import InputError
from certify.one_draw import mean_rate_lower, one_draw_auroc, one_draw_rates

SIGMA, ALPHA, K = 0.5, 0.001, 20_000
RADII = np.linspace(0.0, 1.0, 11)
SIDES = {"clean": (0, 0), "in": (0, 1), "out": (1, 0), "both": (1, 1)}
NORMAL_DRAWS = SIGMA * ndtri((np.arange(K) + 0.5) / K)


def linear(means: list[float]) -> np.ndarray:
    """A = w.x with |w| = 1: the scores of one image are its mean plus sigma times a normal number."""
    return np.array(means)[:, None] + NORMAL_DRAWS


@pytest.mark.parametrize("side", SIDES)
def test_one_linear_pair_is_certified_exactly_up_to_confidence(side) -> None:
    """Attacked, the pair wins with probability Phi((mu_i - mu_j - 2 r) / (sqrt(2) sigma)), r for one image."""
    out, into = SIDES[side]
    truth = ndtr((1.0 - (out + into) * RADII) / (np.sqrt(2) * SIGMA))
    bound = one_draw_auroc(linear([1.2, 0.2]), [1, 0], SIGMA, RADII, ALPHA, side)
    assert (bound <= truth).all()
    clean, shift = ndtr(1.0 / (np.sqrt(2) * SIGMA)), np.sqrt(out + into) * RADII / SIGMA
    slack = np.sqrt(-np.log(ALPHA) / K)
    assert bound == pytest.approx(ndtr(ndtri(clean - slack) - shift), abs=1e-3)
    if side in (
        "clean",
        "both",
    ):  # nothing but that slack is lost; one attacked image alone is not the worst shift
        assert ndtr(ndtri(clean) - shift) == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("threshold", [0.3, 0.9])
def test_linear_rates_are_certified_exactly_up_to_confidence(side, threshold: float) -> None:
    out, into = SIDES[side]
    tpr, fpr = one_draw_rates(linear([1.2, 0.2]), [1, 0], threshold, SIGMA, RADII, ALPHA, side)
    true_tpr, true_fpr = (
        ndtr((1.2 - out * RADII - threshold) / SIGMA),
        ndtr((0.2 + into * RADII - threshold) / SIGMA),
    )
    assert (tpr <= true_tpr).all()
    assert (fpr >= true_fpr).all()
    assert tpr == pytest.approx(true_tpr, abs=0.03)
    assert fpr == pytest.approx(true_fpr, abs=0.03)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("side", SIDES)
def test_many_linear_images_are_never_certified_above_the_truth(seed: int, side) -> None:
    rng, (out, into) = np.random.default_rng(seed), SIDES[side]
    means = np.r_[rng.normal(1.5, 0.7, 6), rng.normal(0.0, 0.7, 9)]
    labels, draws = np.r_[np.ones(6, int), np.zeros(9, int)], means[:, None] + NORMAL_DRAWS[None, ::20]
    gaps = means[:6, None] - means[None, 6:]
    for row, radius in enumerate(RADII):
        truth = ndtr((gaps - (out + into) * radius) / (np.sqrt(2) * SIGMA)).mean()
        bound = one_draw_auroc(draws, labels, SIGMA, RADII, ALPHA, side)[row]
        assert bound <= truth
    tpr, fpr = one_draw_rates(draws, labels, 0.8, SIGMA, RADII, ALPHA, side)
    assert (tpr <= ndtr((means[:6, None] - out * RADII - 0.8) / SIGMA).mean(axis=0)).all()
    assert (fpr >= ndtr((means[6:, None] + into * RADII - 0.8) / SIGMA).mean(axis=0)).all()


@pytest.mark.parametrize("anomaly_rate", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("normal_rate", [0.05, 0.4, 0.9])
def test_ties_may_keep_their_half(anomaly_rate: float, normal_rate: float) -> None:
    """Half-space scores 0 and 1 tie often; their attacked rates are known exactly."""
    ones = np.arange(K) / K
    draws = np.array([ones < anomaly_rate, ones < normal_rate]).astype(float)
    bound = one_draw_auroc(draws, [1, 0], SIGMA, RADII, 0.4)
    p, q = ndtr(ndtri(anomaly_rate) - RADII / SIGMA), ndtr(ndtri(normal_rate) + RADII / SIGMA)
    truth = p * (1 - q) + 0.5 * (p * q + (1 - p) * (1 - q))
    assert (bound <= truth).all()
    clean = anomaly_rate * (1 - normal_rate) + 0.5 * (
        anomaly_rate * normal_rate + (1 - anomaly_rate) * (1 - normal_rate)
    )
    assert bound[0] == pytest.approx(clean, abs=0.01)


@pytest.mark.parametrize("side", ["in", "out", "both"])
def test_the_tight_split_construction_needs_its_margin(side) -> None:
    """Reference and noise each cost r: an attacked anomaly loses 2 r, an attacked normal image gains 2 r."""
    (out, into), radius = SIDES[side], 0.2
    draws, truth = linear([1.5, 0.2]), ndtr((1.3 - 2 * sum(SIDES[side]) * radius) / (np.sqrt(2) * SIGMA))
    split = one_draw_auroc(draws, [1, 0], SIGMA, [radius], ALPHA, side, lipschitz=1.0)[0]
    assert truth - (0.05 if side == "both" else 0.15) < split <= truth
    if side == "both":
        assert one_draw_auroc(draws, [1, 0], SIGMA, [radius], ALPHA, side)[0] > truth
    tpr, fpr = one_draw_rates(draws, [1, 0], 0.8, SIGMA, [radius], ALPHA, side, 1.0)
    plain = one_draw_rates(draws, [1, 0], 0.8, SIGMA, [radius], ALPHA, side)
    true_tpr, true_fpr = ndtr((0.7 - 2 * out * radius) / SIGMA), ndtr((2 * into * radius - 0.6) / SIGMA)
    assert true_tpr - 0.02 < tpr[0] <= true_tpr
    assert true_fpr <= fpr[0] < true_fpr + 0.02
    assert (plain[0][0] > true_tpr, plain[1][0] < true_fpr) == (out == 1, into == 1)


def test_the_confidence_holds_by_exact_summation() -> None:
    """All outcomes of 2 + 2 images of 3 draws each with scores 0 and 1: the wrong ones are rare enough."""
    alpha, labels = 0.3, [1, 1, 0, 0]
    outcomes = np.array(list(product([0.0, 1.0], repeat=12))).reshape(-1, 4, 3)
    values = np.array([one_draw_auroc(row, labels, SIGMA, [0.0], alpha)[0] for row in outcomes])
    for rates in ([0.9, 0.2, 0.1, 0.6], [0.5, 0.5, 0.5, 0.5], [0.3, 0.2, 0.9, 0.8], [1.0, 0.0, 0.0, 1.0]):
        p = np.array(rates)[None, :, None]
        weight = np.where(outcomes == 1.0, p, 1.0 - p).prod(axis=(1, 2))
        credit = np.mean([0.5 + 0.5 * (rates[i] - rates[j]) for i in (0, 1) for j in (2, 3)])
        assert weight[values > credit].sum() <= alpha


def test_the_slack_is_mcdiarmids() -> None:
    labels = np.r_[np.ones(100, int), np.zeros(100, int)]
    for draws in (1, 10):
        scores = np.repeat(labels[:, None], draws, axis=1) + 0.0
        slack = np.sqrt(np.log(1000) * 0.02 / (2 * draws))
        assert one_draw_auroc(scores, labels, SIGMA, [0.0], ALPHA)[0] == pytest.approx(1.0 - slack)
    assert np.sqrt(np.log(1000) * 0.002 / 2) == pytest.approx(0.083, abs=5e-4)  # 1000 + 1000 images, one draw


def test_sides_are_ordered_and_confidence_costs() -> None:
    rng, labels = np.random.default_rng(0), np.r_[np.ones(20, int), np.zeros(20, int)]
    scores = rng.normal(size=(40, 50)) + 3.0 * labels[:, None]
    for lipschitz in (0.0, 1.0):
        value = {s: one_draw_auroc(scores, labels, SIGMA, RADII, ALPHA, s, lipschitz) for s in SIDES}
        assert (value["both"] <= np.minimum(value["in"], value["out"])).all()
        assert (np.maximum(value["in"], value["out"]) <= value["clean"]).all()
        surer = one_draw_auroc(scores, labels, SIGMA, RADII, 1e-6, "both", lipschitz)
        assert (surer <= value["both"]).all()
        assert (np.diff(value["both"]) <= 0).all()
        tpr, fpr = one_draw_rates(scores, labels, 1.5, SIGMA, RADII, ALPHA, "both", lipschitz)
        assert (np.diff(tpr) <= 0).all()
        assert (np.diff(fpr) >= 0).all()
        assert tpr[0] > fpr[0]


def test_nan_draws_lose() -> None:
    rng, labels = np.random.default_rng(1), np.r_[np.ones(20, int), np.zeros(20, int)]
    scores = rng.normal(size=(40, 30)) + 3.0 * labels[:, None]
    broken, replaced = scores.copy(), scores.copy()
    broken[:, :3] = np.nan
    replaced[:20, :3], replaced[20:, :3] = -np.inf, np.inf
    for lipschitz in (0.0, 1.0):
        options = {"side": "both", "lipschitz": lipschitz}
        assert np.array_equal(
            one_draw_auroc(broken, labels, SIGMA, [0.1], ALPHA, **options),
            one_draw_auroc(replaced, labels, SIGMA, [0.1], ALPHA, **options),
        )
        tpr, fpr = one_draw_rates(broken, labels, 1.5, SIGMA, [0.1], ALPHA, **options)
        assert (tpr, fpr) == one_draw_rates(replaced, labels, 1.5, SIGMA, [0.1], ALPHA, **options)
    everything = np.full((40, 30), np.nan)
    assert one_draw_auroc(everything, labels, SIGMA, [0.0], ALPHA)[0] == 0.0
    tpr, fpr = one_draw_rates(everything, labels, 1.5, SIGMA, [0.0], ALPHA)
    assert (tpr[0], fpr[0]) == (0.0, 1.0)


def test_rates_are_clopper_pearsons_at_half_the_level() -> None:
    scores = np.r_[np.arange(10.0), np.arange(10.0)].reshape(4, 5)
    tpr, fpr = one_draw_rates(scores, [1, 1, 0, 0], 2.5, SIGMA, [0.0], 0.1, "clean")
    assert tpr[0] == pytest.approx(beta.ppf(0.05, 7, 4), abs=1e-11)  # 7 of 10 draws above, in both classes
    assert fpr[0] == pytest.approx(beta.ppf(0.95, 8, 3), abs=1e-11)


def test_a_margin_is_rounded_against_us() -> None:
    """The normal score plus 2 r rounds down to the anomaly's, which in truth falls short of it."""
    rng, radius = np.random.default_rng(0), 0.1
    normals = rng.random(100)
    anomalies = normals + 2 * radius
    short = [
        Fraction(a) < Fraction(b) + 2 * Fraction(radius) for a, b in zip(anomalies, normals, strict=True)
    ]
    assert sum(short) > 10
    for anomaly, normal in zip(anomalies[short], normals[short], strict=True):
        for raised, wins in ((anomaly, False), (anomaly + 1e-9, True)):
            scores = np.repeat([[raised], [normal]], 200, axis=1)
            bound = one_draw_auroc(scores, [1, 0], SIGMA, [radius], 0.4, "both", 1.0)[0]
            assert bound > 0.5 if wins else bound == 0.0


def test_a_score_at_the_threshold_is_normal() -> None:
    tpr, fpr = one_draw_rates(np.full((2, 5000), 0.5), [1, 0], 0.5, SIGMA, [0.0], ALPHA)
    assert tpr[0] == 0.0
    assert fpr[0] < 0.002


def successes_law(rates: np.ndarray) -> np.ndarray:
    law = np.ones(1)
    for rate in rates:
        law = np.convolve(law, [1.0 - rate, rate])
    return law


@pytest.mark.parametrize("alpha", [0.25, 0.05, 0.001])
def test_rates_that_differ_are_covered_by_exact_convolution(alpha: float) -> None:
    trials, rng = 12, np.random.default_rng(0)
    lower = np.array([mean_rate_lower(k, trials, alpha) for k in range(trials + 1)])
    families = [rng.random(trials) ** power for power in (0.1, 0.5, 1, 2, 5, 20, 60) for _ in range(40)]
    families += [np.full(trials, p) for p in np.linspace(0.001, 0.999, 40)]
    families += [
        np.r_[np.full(k, 1.0), rest, np.zeros(trials - k - 1)] for k in range(trials) for rest in (0, 0.5)
    ]
    families += [np.r_[p, np.zeros(trials - 1)] for p in np.geomspace(1e-5, 1.0, 40)]
    for rates in families:
        law = successes_law(rates)
        assert law[lower > rates.mean() + 1e-12].sum() <= alpha * (1 + 1e-9)
    # the Clopper-Pearson bound of a single success would not do
    single = 1.0 - (1.0 - alpha) ** (1 / trials)
    unequal = np.r_[single * trials * (1 - 1e-6), np.zeros(trials - 1)]
    assert successes_law(unequal)[1] > alpha
    assert binom.sf(0, trials, unequal.mean()) < alpha


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noisy_scores": np.zeros(4)}, "need \\(images, n\\)"),
        ({"labels": [1, 1, 1, 1]}, "both classes"),
        ({"sigma": 0.0}, "sigma"),
        ({"alpha": 0.5}, "alpha"),
        ({"radii": [-1.0]}, "radii"),
        ({"lipschitz": -1.0}, "lipschitz"),
    ],
)
def test_bad_arguments_are_refused(change, message: str) -> None:
    arguments = {
        "noisy_scores": np.zeros((4, 3)),
        "labels": [1, 0, 1, 0],
        "sigma": 0.5,
        "radii": [0.1],
        "alpha": 0.1,
    }
    with pytest.raises(InputError, match=message):
        one_draw_auroc(**(arguments | change))
    with pytest.raises(InputError, match=message):
        one_draw_rates(**(arguments | change), threshold=0.5)


def test_a_threshold_must_be_finite_and_a_tail_small() -> None:
    with pytest.raises(InputError, match="threshold"):
        one_draw_rates(np.zeros((2, 3)), [1, 0], np.inf, SIGMA, [0.1], 0.1)
    with pytest.raises(InputError, match=r"at most 0\.25"):
        mean_rate_lower(3, 10, 0.3)
