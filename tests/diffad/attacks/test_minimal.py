"""Minimal distances against closed forms, and never below a certified radius."""

import numpy as np
import pytest
import torch
from torch import Tensor

from certify import SmoothedDetector
from certify.checks import InputError
from diffad import detector_class
from diffad.attacks import ThreatModel, minimal_distance

SHAPE = (1, 5, 5)
WEIGHTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
LABELS = np.array([0, 1, 0, 1, 1, 0])
SIGNS = np.where(LABELS == 0, 1.0, -1.0)


def linear(points: Tensor) -> Tensor:
    return (points * WEIGHTS.to(points)).sum((1, 2, 3))


def images() -> Tensor:
    return 0.4 + 0.2 * torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(1))


def dual(norm: str) -> float:
    return float(WEIGHTS.norm() if norm == "l2" else WEIGHTS.abs().sum())


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_linear_score_has_the_distance_of_its_closed_form(norm):
    scores = linear(images()).double().numpy()
    threshold = float(np.median(scores))
    found = minimal_distance(linear, images(), LABELS, threshold, norm=norm, steps=20)
    exact = np.maximum(SIGNS * (threshold - scores), 0.0) / dual(norm)
    assert 0 < (exact > 0).sum() < 6  # some images are on the wrong side as they are
    assert (found.eps >= exact * (1 - 1e-6)).all()
    assert (found.eps <= exact * 1.001 + 1e-4).all()
    np.testing.assert_array_equal(found.eps == 0, exact == 0)
    np.testing.assert_array_equal(found.clean_scores, scores)
    # what is returned is an image at that distance, on the wrong side of the threshold
    distance = ThreatModel(norm, 1.0).distance(found.images, images())
    np.testing.assert_allclose(distance.numpy(), found.eps, rtol=1e-12)
    np.testing.assert_allclose(linear(found.images).numpy(), found.scores, rtol=1e-6)
    np.testing.assert_array_equal(found.scores > threshold, LABELS == 0)
    assert found.info["found"] == 6


def test_a_distance_of_pixels_is_left_at_its_certified_radius_and_never_below():
    """Towards the nearest normal image the score of `pixel_nn` falls by exactly the distance gone."""
    generator = torch.Generator().manual_seed(3)
    bank = 0.4 + 0.2 * torch.rand(30, *SHAPE, generator=generator)
    detector = detector_class("pixel_nn")().fit(bank)
    test = torch.cat([bank[:2] + 0.05 * torch.randn(2, *SHAPE, generator=generator), bank[:2] + 0.2])
    labels, scores = np.array([0, 0, 1, 1]), detector.score(test).double().numpy()
    threshold = 0.4
    certified = np.abs(scores - threshold) / detector.lipschitz
    found = minimal_distance(detector, test, labels, threshold, norm="l2", steps=20)
    assert (found.eps >= certified - 1e-6).all()
    np.testing.assert_allclose(found.eps[labels == 1], certified[labels == 1], rtol=5e-3)


def test_the_smoothed_score_of_a_certificate_is_what_is_carried():
    """h(x) = w.x + quantile of w.noise under the evaluation draws: the distance is |h(x) - threshold| / |w|."""
    smoothed = SmoothedDetector(linear, sigma=0.1, smoothing="input", n=100, batch_size=100, seed=8)
    indices = [4, 0, 9, 2, 7, 1]
    scores = smoothed.score(images(), indices)
    threshold = float(np.median(scores))
    found = minimal_distance(
        smoothed, images(), LABELS, threshold, norm="l2", steps=8, rounds=14, eot=4, indices=indices
    )
    np.testing.assert_array_equal(found.clean_scores, scores)
    exact = np.maximum(SIGNS * (threshold - scores), 0.0) / dual("l2")
    assert (found.eps >= exact * (1 - 1e-6)).all()
    assert (found.eps <= 1.02 * exact + 2e-3).all()
    np.testing.assert_array_equal(smoothed.score(found.images, indices) > threshold, LABELS == 0)
    radii = [0.01, 0.02, 0.05, 0.1, 0.2]
    bounds = smoothed.bounds(images(), indices, radii)
    for row, radius in enumerate(radii):
        certified = np.where(LABELS == 0, bounds.at(row).upper <= threshold, bounds.at(row).lower > threshold)
        assert (found.eps[certified] > radius).all()
    assert (bounds.at(0).upper[LABELS == 0] <= threshold).any()  # otherwise the loop tests nothing


def test_what_no_attack_carries_is_infinitely_far():
    threshold = float(linear(images()).max()) + 0.2 * dual("l2")
    found = minimal_distance(linear, images(), LABELS, threshold, norm="l2", largest=0.1, steps=5)
    np.testing.assert_array_equal(found.eps, np.where(LABELS == 0, np.inf, 0.0))
    np.testing.assert_array_equal(found.scores, found.clean_scores)
    assert torch.equal(found.images, images())
    assert found.info["found"] == 3


def test_a_start_where_the_gradient_vanishes_is_left_at_random():
    centre = torch.full((1, *SHAPE), 0.5)
    found = minimal_distance(
        lambda x: torch.linalg.vector_norm((x - 0.5).flatten(1), dim=1), centre, [0], 0.1, norm="l2", steps=10
    )
    assert found.eps[0] == pytest.approx(0.1, rel=0.01)


def test_a_method_that_needs_scores_only_carries_a_score_without_gradient():
    found = minimal_distance(
        *(lambda x: (8 * linear(x.detach())).round(), images(), LABELS, 0.0),
        **{"norm": "linf", "method": "simba", "steps": 60, "rounds": 10},
    )
    exact = np.maximum(-SIGNS * linear(images()).numpy() - 1 / 16, 0.0) / dual("linf")
    assert (found.eps >= exact - 1e-6).all()
    assert np.isfinite(found.eps).all()
    assert found.info["gradients"] == 0
    assert found.info["score_queries"] > 0
    with pytest.raises(InputError, match="no gradient"):
        minimal_distance(lambda x: linear(x.detach()), images(), LABELS, 9.0, norm="l2")


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_results_do_not_depend_on_the_batch_size_or_the_order(norm):
    options = {"norm": norm, "steps": 5, "rounds": 9}
    whole = minimal_distance(linear, images(), LABELS, 0.3, **options)
    split = minimal_distance(linear, images(), LABELS, 0.3, batch_size=4, **options)
    np.testing.assert_allclose(split.eps, whole.eps, rtol=1e-5)
    order = [3, 1, 5, 0, 2, 4]
    shuffled = minimal_distance(linear, images()[order], LABELS[order], 0.3, indices=order, **options)
    np.testing.assert_allclose(shuffled.eps, whole.eps[order], rtol=1e-5)


def test_each_radius_has_steps_in_its_own_units():
    """Two images at distances a thousand times apart, in one batch: both are found to the same precision."""
    near, far = 0.5 + torch.zeros(2, *SHAPE), torch.ones(SHAPE)
    near[0] += 0.4997 * far
    found = minimal_distance(
        lambda x: x.mean((1, 2, 3)), near, [0, 0], 0.9999, norm="linf", steps=5, rounds=24
    )
    np.testing.assert_allclose(found.eps, [0.0002, 0.4999], rtol=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threshold": float("nan")}, "threshold"),
        ({"rounds": 0}, "rounds"),
        ({"largest": 0.0}, "largest"),
        ({"norm": "l1"}, "l2, linf"),
        ({"method": "feature_target"}, "cannot use 'feature_target'.*pgd"),
        ({"method": "pgd-1000x10"}, "cannot use"),
        ({"method": "newton"}, "method"),
        ({"labels": [0, 1]}, "one label"),
        ({"images": images() + 1}, "need \\[0, 1\\]"),
    ],
)
def test_inputs_out_of_range_are_refused_by_name(changes, words):
    arguments = {"images": images(), "labels": LABELS, "threshold": 0.0, "norm": "l2"} | changes
    with pytest.raises(InputError, match=words):
        minimal_distance(linear, **arguments)
