"""What every detector promises. A new key in DETECTORS fails here until it has a factory in `contract_detectors.py`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from contract_detectors import ANOMALIES, CALIBRATION, FACTORIES, NORMALS, SHAPE, TEST, TRAIN
from jaxtyping import TypeCheckError
from torch import Tensor

from certify.checks import InputError
from diffad import DETECTORS, Detector, detector_class, load_detector
from diffad.attacks import Material, attack


@pytest.fixture(scope="module", params=FACTORIES)
def detector(request: pytest.FixtureRequest) -> Detector:
    return FACTORIES[request.param]().fit(TRAIN, calibration=CALIBRATION, seed=5)


def ranked_above(anomalies: np.ndarray, normals: np.ndarray) -> float:
    difference = anomalies[:, None] - normals[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def require_gradient(detector: Detector) -> None:
    if not detector.has_gradient:
        pytest.skip("declares no gradient")


def require_constant(constant: float | None, what: str) -> float:
    if constant is None:
        pytest.skip(f"declares no {what}")
    return constant


def test_every_detector_runs_through_the_contract() -> None:
    assert {key.partition(":")[0] for key in FACTORIES} == set(DETECTORS)


def test_the_key_is_the_name_of_the_class() -> None:
    for key in DETECTORS:
        assert detector_class(key).name == key


def test_scores_are_finite_one_an_image_in_the_images_dtype(detector: Detector) -> None:
    scores = detector.score(TEST)
    assert scores.shape == (len(TEST),)
    assert scores.dtype == TEST.dtype
    assert bool(torch.isfinite(scores).all())
    assert torch.equal(detector(TEST), scores)


def test_images_do_not_couple_within_a_batch(detector: Detector) -> None:
    together = detector.score(TEST)
    for size in (1, 7):
        apart = torch.cat([detector.score(batch) for batch in TEST.split(size)])
        torch.testing.assert_close(apart, together, rtol=1e-5, atol=1e-5)
    order = torch.randperm(len(TEST), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(detector.score(TEST[order]), together[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        detector.score_array(TEST, batch_size=9), together.detach(), rtol=1e-5, atol=1e-5
    )


def test_scores_do_not_depend_on_gradients_being_recorded(detector: Detector) -> None:
    images = TEST[:5].clone().requires_grad_()
    with torch.no_grad():
        plain = detector.score(images)
    assert torch.equal(detector.score(images).detach(), plain)
    assert not plain.requires_grad


def test_surrogates_score_each_image_by_itself_and_have_gradients(detector: Detector) -> None:
    for name, surrogate in detector.surrogates().items():
        images = TEST.clone().requires_grad_()
        values = surrogate(images)
        assert values.shape == (len(TEST),), name
        (gradient,) = torch.autograd.grad(values.sum(), images)
        assert bool(torch.isfinite(gradient).all()), name
        assert bool((gradient.flatten(1).norm(dim=1) > 0).all()), name
        alone = torch.cat([surrogate(batch).detach() for batch in TEST.split(7)])
        torch.testing.assert_close(alone, values.detach(), rtol=1e-5, atol=1e-5)


def test_each_image_has_a_gradient_of_its_own(detector: Detector) -> None:
    require_gradient(detector)
    images = TEST.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(images).sum(), images)
    assert bool(torch.isfinite(gradient).all())
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    alone = torch.autograd.grad(detector.score(images)[3], images)[0]
    torch.testing.assert_close(alone[3], gradient[3], rtol=1e-4, atol=1e-5)
    alone[3] = 0
    assert not bool(alone.any())


def test_a_black_box_says_so_and_is_attacked_by_its_scores(detector: Detector) -> None:
    if detector.has_gradient:
        assert detector.score(TEST[:2].clone().requires_grad_()).requires_grad
        return
    attacked, labels = torch.cat([NORMALS[:2], ANOMALIES[:2]]), np.array([0, 0, 1, 1])
    with pytest.raises(InputError, match="no gradient in its input"):
        attack(detector, attacked, labels, norm="linf", eps=0.1, steps=2)
    result = attack(detector, attacked, labels, norm="linf", eps=0.3, method="square", steps=60)
    assert (result.scores[:2] > result.clean_scores[:2]).all()
    assert (result.scores[2:] < result.clean_scores[2:]).all()


def test_the_gradient_is_the_slope(detector: Detector) -> None:
    require_gradient(detector)
    if detector.approximate_gradient is not None:
        pytest.skip(f"declares its gradient approximate: {detector.approximate_gradient}")
    image = ANOMALIES[:1] * 0.8 + 0.1
    with torch.enable_grad():
        leaf = image.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(detector.score(leaf).sum(), leaf)
    direction = gradient / gradient.norm()
    step = 1e-3
    rise = detector.score(image + step * direction) - detector.score(image - step * direction)
    torch.testing.assert_close(rise[0].detach() / (2 * step), gradient.norm(), rtol=2e-2, atol=1e-3)


def test_gradient_at_a_training_image_is_finite(detector: Detector) -> None:
    require_gradient(detector)
    images = TRAIN[:3].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(detector.score(images).sum(), images)
    assert bool(torch.isfinite(gradient).all())


def test_toy_anomalies_score_higher(detector: Detector) -> None:
    assert ranked_above(detector.score_array(ANOMALIES), detector.score_array(NORMALS)) > 0.9


def test_threshold_flags_few_normals_and_most_anomalies(detector: Detector) -> None:
    assert detector.threshold_ is not None
    flags = detector.predict(TEST)
    assert set(flags.tolist()) <= {0, 1}
    assert torch.equal(flags == 1, detector.score(TEST) > detector.threshold_)
    assert flags[len(NORMALS) :].float().mean() > 0.5
    assert (detector.score_array(CALIBRATION) > detector.threshold_).mean() <= 0.05


def test_save_and_load_give_the_same_bits(detector: Detector, tmp_path: object) -> None:
    detector.save_pretrained(f"{tmp_path}/saved")
    for loaded in (
        load_detector(f"{tmp_path}/saved"),
        type(detector).from_pretrained(f"{tmp_path}/saved"),
    ):
        assert type(loaded) is type(detector)
        assert loaded.config() == detector.config()
        assert loaded.threshold_ == detector.threshold_
        assert loaded.image_shape == SHAPE
        assert loaded.fingerprint() == detector.fingerprint()
        assert loaded.pair_lipschitz == detector.pair_lipschitz
        assert loaded.lipschitz == detector.lipschitz
        assert not any(module.training for module in loaded.modules())
        assert torch.equal(loaded.score(TEST), detector.score(TEST))


def test_same_seed_same_detector(detector: Detector, request: pytest.FixtureRequest) -> None:
    key = request.node.callspec.params["detector"]
    again = FACTORIES[key]().fit(TRAIN, seed=5)
    assert again.threshold_ is None
    assert torch.equal(again.score(TEST), detector.score(TEST))


def test_global_random_state_is_left_alone(request: pytest.FixtureRequest, detector: Detector) -> None:
    key = request.node.callspec.params["detector"]
    fresh = FACTORIES[key]()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fresh.fit(TRAIN, calibration=CALIBRATION, seed=1)
    fresh.score(TEST[:3])
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_nothing_trains_and_nothing_is_changed_by_scoring(detector: Detector) -> None:
    assert not any(module.training for module in detector.modules())
    before, images = detector.fingerprint(), TEST.clone()
    detector.score(images)
    detector.predict(images)
    assert detector.fingerprint() == before
    assert torch.equal(images, TEST)


def test_new_images_are_not_taken_for_normals_it_keeps(detector: Detector) -> None:
    assert detector.in_bank(TEST) == []
    assert set(detector.in_bank(TRAIN)) <= set(range(len(TRAIN)))


def test_bad_images_are_refused(detector: Detector) -> None:
    nan = TEST[:2].clone()
    nan[1, 0, 0, 0] = torch.nan
    for bad in (nan, TEST[:1] * 2 - 1, TEST[:1, :, :4], TEST[:1].expand(-1, 3, -1, -1), TEST[:0]):
        with pytest.raises(InputError):
            detector.score(bad)


def test_bad_training_images_are_refused(request: pytest.FixtureRequest, detector: Detector) -> None:
    fresh = FACTORIES[request.node.callspec.params["detector"]]()
    for bad in (TRAIN[:0], TRAIN + 1.0, TRAIN * torch.nan, TRAIN[: fresh.min_images - 1]):
        with pytest.raises(InputError):
            fresh.fit(bad)


def test_noise_is_used_by_random_detectors_and_refused_by_others(detector: Detector) -> None:
    noise = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    if not detector.is_random:
        with pytest.raises(InputError, match="not random"):
            detector.score(TEST[:2], noise)
        return
    scores = detector.score(TEST[:6], noise)
    assert not torch.equal(scores, detector.score(TEST[:6]))
    torch.testing.assert_close(detector.score(TEST[2:3], noise), scores[2:3], rtol=1e-5, atol=1e-5)
    for bad in (noise[:0], noise[:, :, :4], noise * torch.inf):
        with pytest.raises((InputError, TypeCheckError), match="noise"):
            detector.score(TEST[:2], bad)


def ascend(score: Callable[[Tensor], Tensor], start: Tensor, steps: int = 30) -> Tensor:
    """Largest slopes |score(x') - score(x)| / |x' - x| (b,) found by gradient ascent over x'."""
    base = score(start).detach().double()
    generator = torch.Generator().manual_seed(0)
    moved = (start + 0.05 * torch.randn(start.shape, generator=generator)).clamp(0, 1)
    best = torch.zeros(len(start), dtype=torch.float64)
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        distance = (moved - start).double().flatten(1).norm(dim=1).clamp(min=1e-2)
        slope = (score(moved).double() - base).abs() / distance
        best = torch.maximum(best, slope.detach())
        (gradient,) = torch.autograd.grad(slope.sum(), moved)
        size = gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
        moved = (moved + 0.05 * gradient / size).clamp(0, 1)
    return best


def test_lipschitz_constant_holds(detector: Detector) -> None:
    constant = require_constant(detector.lipschitz, "lipschitz")
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-2, 0.1, 1.0):
        moved = (TEST + scale * torch.randn(TEST.shape, generator=generator)).clamp(0, 1)
        change = (detector.score(moved) - detector.score(TEST)).abs()
        assert bool((change <= constant * (moved - TEST).flatten(1).norm(dim=1) + 2e-5).all())
    # 2e-5 of float32 score over a distance of at least 1e-2
    assert bool((ascend(detector.score, TEST) <= constant + 2e-3).all())


def test_pair_lipschitz_constant_holds(detector: Detector) -> None:
    constant = require_constant(detector.pair_lipschitz, "pair_lipschitz")
    other = TEST.flip(0)
    for reconstruction in (detector.reconstruct(TEST, 0.5).detach(), other, TEST.clone()):

        def score(reference: Tensor, reconstruction: Tensor = reconstruction) -> Tensor:
            return detector.score_pair(reference, reconstruction)

        change = (score(TEST) - score(other)).abs()
        assert bool((change <= constant * (TEST - other).flatten(1).norm(dim=1) + 2e-5).all())
        assert bool((ascend(score, TEST) <= constant + 2e-3).all())


def test_score_lies_in_its_interval(detector: Detector) -> None:
    if detector.lipschitz is None:
        with pytest.raises(InputError):
            detector.score_interval(TEST)
        return
    lower, upper = detector.score_interval(TEST)
    assert lower.shape == upper.shape == (len(TEST),)
    assert lower.dtype == upper.dtype == np.float64
    assert (lower >= 0).all()
    assert (lower <= upper).all()
    assert (upper - lower < 1e-8).all()
    scores, float32 = detector.score_array(TEST), 2.0**-23
    assert (lower * (1 - float32) <= scores).all()
    assert (scores <= upper * (1 + float32)).all()


def test_an_attacker_who_may_show_anything_reaches_the_floor(detector: Detector) -> None:
    """At Linf eps 1: at least as bad as the worst of all train normals, test images and flat grey levels."""
    require_gradient(detector)  # what a black box reaches depends on its budget
    greys = torch.linspace(0, 1, 11).view(-1, 1, 1, 1).expand(-1, *SHAPE)
    known = detector.score_array(torch.cat([TRAIN, TEST, greys]))
    attacked, labels = torch.cat([NORMALS[:4], ANOMALIES[:4]]), np.repeat([0, 1], 4)
    material = Material(references=torch.cat([TRAIN, TEST]))
    result = attack(
        detector, attacked, labels, norm="linf", eps=1.0, method="ensemble", steps=2, material=material
    )
    slack = 1e-5 * float(np.abs(known).max())
    for scores in (result.scores, result.members["feature_target"]):
        assert (scores[:4] >= known.max() - slack).all()
        assert (scores[4:] <= known.min() + slack).all()


def test_reconstruction_reads_the_noisy_image_alone(detector: Detector) -> None:
    if type(detector).reconstruct is Detector.reconstruct:
        with pytest.raises(InputError):
            detector.reconstruct(TEST, 0.5)
        return
    noisy = TEST + 0.5 * torch.randn(TEST.shape, generator=torch.Generator().manual_seed(0))
    first = detector.reconstruct(noisy, 0.5)
    assert first.shape == noisy.shape
    assert torch.equal(first, detector.reconstruct(noisy, 0.5))
    torch.testing.assert_close(detector.reconstruct(noisy[4:5], 0.5), first[4:5], rtol=1e-5, atol=1e-5)


def test_anomaly_maps_have_the_size_of_the_images(detector: Detector) -> None:
    if type(detector).anomaly_map is Detector.anomaly_map:
        with pytest.raises(InputError, match="no anomaly map"):
            detector.anomaly_map(TEST)
        return
    maps = detector.anomaly_map(TEST)
    assert maps.shape == (len(TEST), *SHAPE[1:])
    assert bool(torch.isfinite(maps).all())
    assert not maps.requires_grad


def test_a_map_with_a_constant_has_an_interval_and_keeps_to_it(detector: Detector) -> None:
    if detector.map_lipschitz is None:
        with pytest.raises(InputError, match="interval"):
            detector.map_interval(TEST)
        return
    lower, upper = detector.map_interval(TEST)
    maps = detector.anomaly_map(TEST).double().numpy()
    assert lower.dtype == upper.dtype == np.float64
    assert (lower <= upper).all()
    np.testing.assert_allclose(maps, lower, rtol=1e-5, atol=1e-6)  # the map itself is of float32
    np.testing.assert_allclose(upper, lower, rtol=1e-9, atol=1e-6)
    for towards in (
        TEST.flip(0),
        torch.zeros_like(TEST),
        torch.rand(TEST.shape, generator=torch.Generator().manual_seed(3)),
    ):
        moved = TEST + 0.3 * (towards - TEST)
        size = (moved.double() - TEST.double()).flatten(1).norm(dim=1).numpy()[:, None, None]
        low, high = detector.map_interval(moved)
        assert (low <= upper + detector.map_lipschitz * size + 1e-12).all()
        assert (high >= lower - detector.map_lipschitz * size - 1e-12).all()
