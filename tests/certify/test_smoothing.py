from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from certify.certificate import certified_radius
from certify.checks import InputError
from certify.metrics import auroc
from certify.smoothing import SmoothedDetector, threshold_rank
from certify.store import ScoreStore
from certify.types import ScoreBounds
from certify.ways import WAYS

SIGMA = 0.25
SHAPE = (1, 4, 4)


class Linear:
    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight


def test_a_plain_callable_is_enough_and_its_worst_case_is_inside(images: Tensor) -> None:
    """The worst median of a linear score is known: no attack is needed to check the certificate."""
    weight = torch.linspace(-1.0, 2.0, 16)
    norm = float(weight.double().norm())
    smoothed = SmoothedDetector(Linear(weight), SIGMA, "input", n=1000, batch_size=250)
    radii = [0.0, 0.1, 0.3]
    bounds = smoothed.bounds(images, range(6), radii, alpha=1e-6)
    median = images.double().flatten(1).numpy() @ weight.double().numpy()
    for row, radius in enumerate(radii):
        assert (bounds.lower[row] <= median - radius * norm).all()
        assert (bounds.upper[row] >= median + radius * norm).all()
        # and not by more than the ranks' slack: the population bound is exact
        assert (bounds.lower[row] >= median - radius * norm - SIGMA * norm).all()
    estimate = smoothed.score(images, range(6))
    assert np.abs(estimate - median).max() < 0.3 * SIGMA * norm


def test_the_score_estimate_lies_within_the_bounds_for_every_way(images: Tensor, shrink) -> None:
    for way in WAYS:
        smoothed = SmoothedDetector(shrink, SIGMA, way, n=500)
        bounds = smoothed.bounds(images, range(6), [0.0, 0.2], alpha=1e-5)
        score = smoothed.score(images, range(6))
        assert (bounds.lower[0] <= score).all()
        assert (score <= bounds.upper[0]).all()
        assert (bounds.lower[1] < bounds.lower[0]).all()


class Tilted:
    """R(y) = x0 + (2 - <y - x0, e>) e: an attack along e gains r by the reference and r by the noise."""

    def __init__(self, origin: Tensor, pair_lipschitz: float) -> None:
        self.origin, self.pair_lipschitz = origin, pair_lipschitz
        self.direction = torch.zeros(SHAPE)
        self.direction[0, 0, 0] = 1.0

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        along = (noisy - self.origin)[:, :1, :1, :1]
        return self.origin + (2.0 - along) * self.direction

    def score_pair(self, reference: Tensor, reconstruction: Tensor) -> Tensor:
        return (reference - reconstruction).flatten(1).norm(dim=1)


def test_the_split_certificate_holds_where_dropping_its_term_fails(images: Tensor) -> None:
    image, radius = images[:1], 0.2
    attacked = image.clone()
    attacked[0, 0, 0, 0] += radius
    honest = SmoothedDetector(Tilted(image[0], 1.0), SIGMA, "reference", n=5000)
    reached = honest.score(attacked, [0])
    assert reached[0] == pytest.approx(2.0 - 2 * radius, abs=0.02)
    bounds = honest.bounds(image, [0], [radius])
    assert bounds.lower[0, 0] <= reached[0]
    assert bounds.lower[0, 0] == pytest.approx(reached[0], abs=0.05)  # tight
    dropped = SmoothedDetector(Tilted(image[0], 1e-9), SIGMA, "reference", n=5000)
    assert dropped.bounds(image, [0], [radius]).lower[0, 0] > reached[0] + 0.1


def test_a_small_network_end_to_end(tmp_path: Path) -> None:
    """Train on nothing, certify, attack at random: the order certified <= attacked <= clean must come out."""
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1))
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    smoothed = SmoothedDetector(lambda x: network(x)[:, 0], SIGMA, "input", n=500, batch_size=100)
    images = 0.2 + 0.6 * torch.rand(16, *SHAPE, generator=generator)
    clean = smoothed.score(images, range(16))
    labels = (clean > np.median(clean)).astype(int)
    radii = [0.0, 0.05, 0.1]
    store = ScoreStore(tmp_path, {**smoothed.sampling_config(), "detector": "toy"})
    bounds = smoothed.bounds(images, range(16), radii, alpha=1e-5, store=store)
    again = smoothed.bounds(images, range(16), radii, alpha=1e-5, store=store)
    assert np.array_equal(bounds.lower, again.lower)
    certified = auroc(bounds, labels)
    low, high = clean.copy(), clean.copy()
    for _ in range(5):
        step = torch.randn(images.shape, generator=generator)
        step = 0.1 * step / step.flatten(1).norm(dim=1)[:, None, None, None]
        scores = smoothed.score((images + step).clamp(0, 1), range(16))
        low, high = np.minimum(low, scores), np.maximum(high, scores)
    attacked = auroc(ScoreBounds(low, high), labels)
    assert (bounds.lower[2] <= low).all()
    assert (high <= bounds.upper[2]).all()
    assert certified[2] <= attacked <= auroc(ScoreBounds.exact(clean), labels, "clean") == 1.0
    assert (np.diff(certified) <= 0).all()


def test_the_threshold_is_the_conformal_rank_of_fresh_draws(images: Tensor, shrink) -> None:
    many = images.repeat(4, 1, 1, 1)[:20]
    smoothed = SmoothedDetector(shrink, SIGMA, "input", n=100, batch_size=100)
    threshold = smoothed.calibrate(many, 0.9)
    assert threshold == smoothed.threshold_ == np.sort(smoothed.score(many, range(20), "calibrate"))[18]
    with pytest.raises(InputError, match="need at least 19"):
        smoothed.calibrate(many[:18], 0.95)


def test_the_rank_of_a_threshold_is_exact() -> None:
    assert threshold_rank(19, 0.95) == 19
    assert threshold_rank(99, 0.95) == threshold_rank(99, np.float64(0.95)) == 95
    assert threshold_rank(99, 0.95 + 1e-12) == 96  # 95.0000000001
    with pytest.raises(InputError, match="need at least 20 "):
        threshold_rank(19, 0.95 + 1e-12)


@pytest.mark.parametrize("count", [1, 2, 6, 7, 18, 50, 500])
def test_too_few_normals_are_told_the_largest_quantile_they_allow(count: int) -> None:
    with pytest.raises(InputError, match="add training images") as caught:
        threshold_rank(count, 0.9999)
    named = float(str(caught.value).rpartition(" ")[2])
    assert threshold_rank(count, named) == count


@pytest.mark.parametrize("way", ["input", "none"])
def test_predict_and_radius_agree_with_the_bounds(images: Tensor, way, shrink) -> None:
    smoothed = SmoothedDetector(shrink, SIGMA, way, n=500, alpha=0.01)
    smoothed.threshold_ = float(np.sort(smoothed.score(images, range(6)))[3])
    labels = np.array([0, 1, 0, 1, 0, 1])
    known = smoothed.radius(images, range(6), labels)
    unknown = smoothed.radius(images, range(6))
    bounds = smoothed.bounds(images, range(6), [0.02])
    right = np.where(
        labels == 1, bounds.lower[0] > smoothed.threshold_, bounds.upper[0] <= smoothed.threshold_
    )
    assert np.array_equal(known >= 0.02, right)
    assert known.max() > 0.0
    assert (unknown >= 0.0).all()
    decisions = smoothed.predict(images, range(6))
    assert set(decisions.tolist()) <= {-1, 0, 1}
    assert ((known == 0.0) | (decisions == labels) | (decisions == -1)).all()
    if way == "none":
        exact = np.abs(smoothed.score(images, range(6)) - smoothed.threshold_)
        assert unknown == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("labels", [[-1] * 6, [2] * 6, ["anomalous"] * 6, [0], [0] * 7])
@pytest.mark.parametrize("way", ["none", "input"])
def test_a_radius_is_given_for_labels_of_0_and_1_one_an_image(
    way: str, labels: list[object], images: Tensor, shrink
) -> None:
    smoothed = SmoothedDetector(shrink, None if way == "none" else SIGMA, way, n=50, batch_size=50)
    smoothed.threshold_ = 100.0  # all are decided normal
    with pytest.raises(InputError, match="labels: got"):
        smoothed.radius(images, range(6), labels)
    assert (smoothed.radius(images, range(6), [1] * 6) == 0.0).all()  # one class alone is fine
    assert (smoothed.radius(images, range(6), [0] * 6) > 0.0).all()


def test_predict_abstains_at_the_threshold() -> None:
    image = torch.full((1, *SHAPE), 0.5)
    smoothed = SmoothedDetector(Linear(torch.ones(16)), SIGMA, "input", n=100, batch_size=100, alpha=1e-6)
    smoothed.threshold_ = 8.0
    assert smoothed.predict(image, [0]).tolist() == [-1]
    assert smoothed.radius(image, [0]).tolist() == [0.0]


def test_predict_without_noise_abstains_where_the_enclosure_holds_the_threshold(
    images: Tensor, shrink
) -> None:
    smoothed = SmoothedDetector(shrink, None, "none")
    lower, upper = (float(end[0]) for end in shrink.score_interval(images[:1]))
    cases = {
        np.nextafter(lower, 0.0): 1,
        lower: -1,
        (lower + upper) / 2: -1,
        np.nextafter(upper, 0.0): -1,
        upper: 0,
    }
    for threshold, decision in cases.items():
        smoothed.threshold_ = float(threshold)
        assert smoothed.predict(images[:1], [0]).tolist() == [decision]
        assert (smoothed.radius(images[:1], [0])[0] > 0.0) <= (decision >= 0)


def test_a_step_out_of_order_is_named(images: Tensor, shrink) -> None:
    with pytest.raises(InputError, match="draws no noise"):
        SmoothedDetector(shrink, None, "none").noisy_scores(images, range(6))
    with pytest.raises(InputError, match="calibrate"):
        SmoothedDetector(shrink, SIGMA, "input", n=50, batch_size=50).predict(images, range(6))


def test_an_unknown_side_costs_half_of_alpha_each(images: Tensor, shrink) -> None:
    smoothed = SmoothedDetector(shrink, SIGMA, "input", n=500, alpha=0.01)
    smoothed.threshold_ = 2.0
    scores = smoothed.noisy_scores(images, range(6))
    sides = [certified_radius(scores, 2.0, SIGMA, 0.005, side) for side in ("anomalous", "normal")]
    assert (np.maximum(*sides) > 0.0).any()
    assert np.array_equal(smoothed.radius(images, range(6)), np.maximum(*sides))
