from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from certify.bounds import clopper_pearson_lower
from certify.checks import InputError
from certify.sequential import fewest_draws
from certify.smoothing import SmoothedDetector
from diffad.prediction import SELECTION, Rule, check_budget, decide

SIDE, SIGMA = 2, 0.25  # images of 1 x 2 x 2
MEAN = SIDE * SIDE


def linear(images: Tensor) -> Tensor:
    """Mean of the pixels times 2: ||w|| = 1, so the smoothed score and every radius are known exactly."""
    return images.flatten(1).sum(1) / SIDE


def smoothed(threshold: float = 1.0, **options) -> SmoothedDetector:
    found = SmoothedDetector(linear, SIGMA, "input", **{"n": 1000, "batch_size": 50, **options})
    found.threshold_ = threshold
    return found


def image(score: float) -> Tensor:
    """A flat image with this score; its distance to the threshold 1 is |score - 1|."""
    return torch.full((1, SIDE, SIDE), score * SIDE / MEAN)


@pytest.mark.parametrize(("score", "decision"), [(1.5, "anomalous"), (0.5, "normal")])
def test_the_radius_is_cohens_from_fresh_draws(score, decision) -> None:
    rule = Rule(seed=3)
    found = decide(smoothed(), image(score), 7, rule, name="a.png")
    draws = smoothed(seed=3).noisy_scores(image(score)[None], [7], "predict")[0]
    votes = int(((draws > 1.0) == (score > 1.0)).sum())
    cohen = SIGMA * norm.ppf(clopper_pearson_lower(votes, 1000, rule.alpha))
    assert found.radius == pytest.approx(cohen, rel=1e-9)
    assert 0.35 < found.radius <= abs(score - 1.0)
    assert (found.image, found.decision) == ("a.png", decision)
    assert found.linf == pytest.approx(found.radius / 2)
    assert found.score == pytest.approx(np.sort(draws)[499])
    assert (found.draws, found.passes, found.invalid) == (1000, 1000 + SELECTION, 0)
    assert found.seconds > 0


def test_it_abstains_where_the_draws_do_not_tell() -> None:
    found = decide(smoothed(), image(1.001), 0, Rule(seed=0))
    assert (found.decision, found.radius, found.linf) == ("abstain", 0.0, 0.0)


def test_a_certificate_fails_no_more_often_than_alpha() -> None:
    # alpha .2 and 60 draws, so that failures occur and can be counted: a broken level shows
    rule, true = Rule(seed=0, alpha=0.2, n=60), 0.1
    radii = [decide(smoothed(), image(1.0 + true), i, rule, probe=False) for i in range(400)]
    failures = sum(found.decision != "abstain" and found.radius > true for found in radii)
    assert 40 <= failures <= 400 * 0.2 + 3 * (400 * 0.16) ** 0.5


def test_the_guess_takes_no_draw_of_the_certificate(monkeypatch) -> None:
    from certify import pool

    seen = []
    real = pool.gaussian_noise

    def noted(seed, index, purpose, chunk, shape):
        seen.append((purpose, chunk))
        return real(seed, index, purpose, chunk, shape)

    monkeypatch.setattr(pool, "gaussian_noise", noted)
    decide(smoothed(), image(1.5), 0, Rule(seed=0, n=100), probe=False)
    assert seen == [("select", 0), ("select", 1), ("predict", 0), ("predict", 1)]


@pytest.mark.parametrize(("score", "decision"), [(1.6, "anomalous"), (0.4, "normal")])
def test_a_clear_image_stops_at_the_first_look_of_the_sequential_rule(score, decision) -> None:
    rule = Rule(seed=0, radius=SIGMA)
    found = decide(smoothed(), image(score), 0, rule)
    assert (found.decision, found.radius) == (decision, SIGMA)
    assert found.draws <= 150 < rule.max_samples
    assert fewest_draws(norm.cdf(1.0), rule.alpha) == 40


def test_a_hopeless_image_stops_early_too() -> None:
    found = decide(smoothed(), image(1.01), 0, Rule(seed=0, radius=SIGMA))
    assert (found.decision, found.radius) == ("abstain", 0.0)
    assert found.draws <= 500


def test_the_sequential_level_holds_at_the_boundary() -> None:
    # the truth is exactly R: each certificate there is a failure
    rule = Rule(seed=1, alpha=0.2, radius=0.1, max_samples=400)
    exact = image(1.0 + 0.1 - 1e-6)
    failures = sum(
        decide(smoothed(), exact, i, rule, probe=False).decision == "anomalous" for i in range(300)
    )
    assert 20 <= failures <= 300 * 0.2 + 3 * (300 * 0.16) ** 0.5


def test_max_samples_that_can_decide_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="max_samples: got 30, need at least 40"):
        decide(smoothed(), image(1.5), 0, Rule(seed=0, radius=SIGMA, max_samples=30))
    # at another percentile one side needs more: Phi(1 + Phi^-1(.7)) must be exceeded
    need = fewest_draws(norm.cdf(1 + norm.ppf(0.7)), 0.001)
    with pytest.raises(InputError, match=f"need at least {need}"):
        check_budget(smoothed(percentile=0.7), Rule(seed=0, radius=SIGMA, max_samples=need - 1))
    check_budget(smoothed(percentile=0.7), Rule(seed=0, radius=SIGMA, max_samples=need))


class Pair(SimpleNamespace):
    """score_pair |x - R| with L = 1 and a reconstruction that ignores its input but for its noise."""

    pair_lipschitz = 1.0

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        return torch.zeros_like(noisy)

    def score_pair(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        return (reference - reconstruction).flatten(1).norm(dim=1)


def test_the_split_certificate_keeps_its_margin_under_the_sequential_rule() -> None:
    # the score is |x| whatever the noise: all draws agree, and only L r < margin decides
    found = SmoothedDetector(Pair(), 1.0, "reference", batch_size=50)
    found.threshold_ = 1.0
    near = decide(found, image(1.2), 0, Rule(seed=0, radius=0.25))
    far = decide(found, image(1.3), 0, Rule(seed=0, radius=0.25))
    assert (near.decision, far.decision) == ("abstain", "anomalous")
    assert decide(found, image(0.76), 0, Rule(seed=0, radius=0.25)).decision == "abstain"
    assert decide(found, image(0.74), 0, Rule(seed=0, radius=0.25)).decision == "normal"


class Distance:
    lipschitz = 1.0

    def score_interval(self, images: Tensor) -> tuple:
        score = linear(images).double().numpy()
        return score - 1e-9, score + 1e-9


def test_without_noise_the_margin_is_the_radius() -> None:
    found = SmoothedDetector(Distance(), None, "none")
    found.threshold_ = 1.0
    clear = decide(found, image(1.5), 0, Rule(seed=0))
    assert (clear.decision, clear.draws, clear.passes) == ("anomalous", 0, 1)
    assert clear.radius == pytest.approx(0.5, abs=1e-8)
    assert decide(found, image(0.5), 0, Rule(seed=0, radius=0.4)).radius == 0.4
    assert decide(found, image(0.5), 0, Rule(seed=0, radius=0.6)).decision == "abstain"
    assert decide(found, image(1.0), 0, Rule(seed=0)).decision == "abstain"  # within the rounding


def test_nan_draws_count_against_the_image_and_are_counted() -> None:
    def broken(images: Tensor) -> Tensor:
        return linear(images).masked_fill(images.flatten(1)[:, 0] > 0.75 + SIGMA, torch.nan)

    found = SmoothedDetector(broken, SIGMA, "input", batch_size=50)
    found.threshold_ = 1.0
    fixed = decide(found, image(1.5), 0, Rule(seed=0))
    assert 100 < fixed.invalid < 220
    assert fixed.score is None
    assert fixed.radius < decide(smoothed(), image(1.5), 0, Rule(seed=0)).radius


def test_refusals() -> None:
    for changes, message in [
        ({"alpha": 0.5}, "alpha"),
        ({"radius": 0.0}, "radius"),
        ({"n": 0}, "n: got 0"),
        ({"max_samples": 0}, "max_samples"),
        ({"seed": -1}, "seed"),
    ]:
        with pytest.raises(InputError, match=message):
            replace(Rule(seed=0), **changes)
    uncalibrated = smoothed()
    uncalibrated.threshold_ = None
    with pytest.raises(InputError, match="calibrate"):
        decide(uncalibrated, image(1.0), 0, Rule(seed=0))
