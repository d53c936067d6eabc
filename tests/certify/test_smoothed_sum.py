"""A detector at several noise levels; and why their noise may not be shared within a draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.certificate import certify_scores, percentile_scores
from certify.checks import InputError
from certify.sampler import gaussian_noise, sample_scores
from certify.smoothed_sum import SmoothedSum, level_seed
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore

SIGMAS, WEIGHTS = (0.25, 0.5), (1.0, 2.0)
OPTIONS = {"n": 200, "batch_size": 100}
WEIGHT = torch.linspace(-1.0, 2.0, 16)


def linear(images: Tensor) -> Tensor:
    return images.flatten(1) @ WEIGHT


def test_the_worst_case_of_a_linear_score_is_inside(images: Tensor) -> None:
    smoothed = SmoothedSum.of(linear, SIGMAS, "input", weights=WEIGHTS, n=1000)
    norm, radii = float(WEIGHT.double().norm()), [0.0, 0.1, 0.3]
    bounds = smoothed.bounds(images, range(6), radii, alpha=1e-6)
    median = 3.0 * (images.double().flatten(1).numpy() @ WEIGHT.double().numpy())
    for row, radius in enumerate(radii):
        assert (bounds.lower[row] <= median - 3.0 * radius * norm).all()
        assert (bounds.upper[row] >= median + 3.0 * radius * norm).all()
    assert np.abs(smoothed.score(images, range(6)) - median).max() < 0.3 * norm


def test_it_is_the_weighted_sum_of_its_levels(images: Tensor, shrink) -> None:
    smoothed = SmoothedSum.of(shrink, SIGMAS, weights=WEIGHTS, seed=3, **OPTIONS)
    levels = [SmoothedDetector(shrink, s, seed=level_seed(3, t), **OPTIONS) for t, s in enumerate(SIGMAS)]
    parts = [level.score(images, range(6)) for level in levels]
    np.testing.assert_allclose(smoothed.score(images, range(6)), parts[0] + 2 * parts[1], rtol=1e-12)
    parts = [level.bounds(images, range(6), [0.1], alpha=0.0005).lower for level in levels]
    bounds = smoothed.bounds(images, range(6), [0.1], alpha=0.001)
    np.testing.assert_allclose(bounds.lower, parts[0] + 2 * parts[1], rtol=1e-12)
    assert [term.lipschitz for term in smoothed.terms] == [1.0, 1.0]


def test_predict_and_radius_agree_with_the_bounds(images: Tensor, shrink) -> None:
    smoothed = SmoothedSum.of(shrink, SIGMAS, "input", weights=WEIGHTS, alpha=0.01, n=500)
    smoothed.threshold_ = float(np.sort(smoothed.score(images, range(6)))[3])
    labels = np.array([0, 1, 0, 1, 0, 1])
    known, bounds = smoothed.radius(images, range(6), labels), smoothed.bounds(images, range(6), [0.02])
    right = np.where(
        labels == 1, bounds.lower[0] > smoothed.threshold_, bounds.upper[0] <= smoothed.threshold_
    )
    assert np.array_equal(known >= 0.02, right)
    assert known.max() > 0.0
    unknown, decisions = smoothed.radius(images, range(6)), smoothed.predict(images, range(6))
    assert (unknown >= 0.0).all()
    assert set(decisions.tolist()) <= {-1, 0, 1}
    assert ((known == 0.0) | (decisions == labels) | (decisions == -1)).all()
    assert (decisions >= 0).any()


@pytest.mark.parametrize("labels", [[-1] * 6, [2] * 6, ["normal"] * 6, [0]])
def test_a_radius_is_given_for_labels_of_0_and_1_one_an_image(
    labels: list[object], images: Tensor, shrink
) -> None:
    smoothed = SmoothedSum.of(shrink, SIGMAS, **OPTIONS)
    smoothed.threshold_ = 100.0  # all are decided normal
    with pytest.raises(InputError, match="labels: got"):
        smoothed.radius(images, range(6), labels)
    assert (smoothed.radius(images, range(6), [1] * 6) == 0.0).all()


def test_the_threshold_is_a_conformal_rank_of_calibration_draws(images: Tensor, shrink) -> None:
    many = images.repeat(4, 1, 1, 1)[:20]
    smoothed = SmoothedSum.of(shrink, SIGMAS, "input", n=100, batch_size=100)
    threshold = smoothed.calibrate(many, 0.9)
    assert threshold == smoothed.threshold_ == np.sort(smoothed.score(many, range(20), "calibrate"))[18]
    with pytest.raises(InputError, match="need at least 19"):
        smoothed.calibrate(many[:18], 0.95)
    with pytest.raises(InputError, match="calibrate"):
        SmoothedSum.of(shrink, SIGMAS, **OPTIONS).predict(images, range(6))


def test_each_level_keeps_its_draws_in_a_store_of_its_own(images: Tensor, shrink, tmp_path: Path) -> None:
    smoothed = SmoothedSum.of(shrink, SIGMAS, **OPTIONS)
    configs = [{**config, "detector": "shrink"} for config in smoothed.sampling_configs()]
    assert [config["sigma"] for config in configs] == list(SIGMAS)
    stores = [ScoreStore(tmp_path / str(level), config) for level, config in enumerate(configs)]
    before = smoothed.bounds(images, range(6), [0.1], stores=stores)
    after = smoothed.bounds(images, range(6), [0.1], stores=stores)
    assert np.array_equal(before.lower, after.lower)
    assert len(list(tmp_path.iterdir())) == 2


def test_levels_that_would_share_noise_or_have_none_are_refused(shrink) -> None:
    same = [SmoothedDetector(shrink, sigma, **OPTIONS) for sigma in SIGMAS]
    with pytest.raises(InputError, match="share their noise"):
        SmoothedSum(same)
    with pytest.raises(InputError, match="no noise level"):
        SmoothedSum([SmoothedDetector(shrink, None, "none")])
    with pytest.raises(InputError, match="one of each"):
        SmoothedSum(same[:1], [1.0, 2.0])
    with pytest.raises(InputError, match="weights: got -1"):
        SmoothedSum(same[:1], [-1.0])
    with pytest.raises(InputError, match="at least 0"):
        level_seed(-1, 0)


def noisy_copies(image: Tensor, seeds: tuple[int, int]) -> list[np.ndarray]:
    pixels = image.double().numpy()
    return [
        pixels + sigma * gaussian_noise(seed, 0, "certify", 0, image.shape)
        for sigma, seed in zip(SIGMAS, seeds, strict=True)
    ]


def recovered(copies: list[np.ndarray]) -> np.ndarray:
    """The clean image, if both copies carry the same noise."""
    return (SIGMAS[1] * copies[0] - SIGMAS[0] * copies[1]) / (SIGMAS[1] - SIGMAS[0])


def test_noise_shared_within_a_draw_gives_the_clean_image_away(images: Tensor) -> None:
    """The warning of `certify.sums`. Our levels are keyed apart, so that nothing can be recovered from them."""
    image = images[0]
    shared = recovered(noisy_copies(image, (0, 0)))
    np.testing.assert_allclose(shared, image.double().numpy(), atol=1e-12)
    ours = recovered(noisy_copies(image, (level_seed(0, 0), level_seed(0, 1))))
    assert np.abs(ours - image.double().numpy()).mean() > SIGMAS[0]


def test_a_per_draw_sum_under_shared_noise_is_certified_falsely(images: Tensor) -> None:
    """A score of both copies that reads x through them has no noise left: its 'bounds' are one point at any radius."""
    radius, step = 0.2, torch.zeros_like(images[:1])
    step[0, 0, 0, 0] = radius

    def base(clean: Tensor, noisy: Tensor) -> Tensor:
        second = clean + (noisy - clean) * (SIGMAS[1] / SIGMAS[0])  # the same e at the other sigma
        found = (SIGMAS[1] * noisy - SIGMAS[0] * second) / (SIGMAS[1] - SIGMAS[0])
        return found.flatten(1) @ torch.ones(16)

    options = {"sigma": SIGMAS[0], "n": 200, "seed": 0, "purpose": "certify", "batch_size": 100}
    before, after = (sample_scores(base, image, [0], **options) for image in (images[:1], images[:1] + step))
    bounds = certify_scores(before, SIGMAS[0], [radius], 0.001)
    assert percentile_scores(after)[0] > bounds.upper[0, 0] + 0.9 * radius
