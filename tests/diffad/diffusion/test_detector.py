from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad import load_detector
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.scores import (
    SCORE_NAMES,
    l2_norm,
    multiscale_error,
    patch_norms,
    patch_weights,
    safe_root,
)


@pytest.fixture(scope="module")
def detector(tiny):
    fitted = tiny.detector()
    fitted.fit_statistics(tiny.images(12, seed=1), [0.1, 0.4, 1.6])
    return fitted


@pytest.mark.parametrize("name", SCORE_NAMES)
def test_save_and_load_give_the_same_bits_for_every_score(name, detector, tiny, tmp_path: Path) -> None:
    changed = detector.with_options(score_name=name, draws=2)
    changed.calibrate(tiny.images(20, seed=4))
    changed.save_pretrained(tmp_path)
    loaded = load_detector(tmp_path)
    assert loaded.config() == changed.config()
    assert loaded.threshold_ == changed.threshold_
    assert torch.equal(loaded.score(tiny.images(5)), changed.score(tiny.images(5)))
    assert torch.equal(loaded.anomaly_map(tiny.images(5)), changed.anomaly_map(tiny.images(5)))


def test_a_network_of_another_training_is_refused(detector, tiny, tmp_path: Path) -> None:
    detector.save_pretrained(tmp_path)
    other = tiny.denoiser()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    other.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="do not belong together"):
        load_detector(tmp_path)


def test_the_score_is_the_mean_over_the_stored_draws(detector, tiny) -> None:
    images = tiny.images(4)
    one_by_one = [
        l2_norm(images - detector.reconstruct(images + 0.5 * noise, 0.5)) for noise in detector.noise_
    ]
    torch.testing.assert_close(detector.score(images), torch.stack(one_by_one).mean(0))
    torch.testing.assert_close(detector.score(images, detector.noise_[1:2]), one_by_one[1])
    assert torch.equal(detector.score(images, detector.noise_), detector.score(images))


def test_stored_draws_follow_the_seed_and_leave_global_state_alone(tiny) -> None:
    state = torch.get_rng_state()
    one, same, other = tiny.detector(), tiny.detector(), tiny.detector(seed=1)
    one.score(tiny.images(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.noise_, same.noise_)
    assert not torch.equal(one.noise_, other.noise_)
    assert abs(float(one.noise_.std()) - 1) < 0.2


def test_options_change_the_score_and_nothing_else(detector, tiny) -> None:
    images, before = tiny.images(4), detector.fingerprint()
    changed = detector.with_options(score_name="patch_max", patch_size=2, sigma=0.25, draws=1)
    assert (changed.score_name, changed.patch_size, changed.sigma, changed.draws) == ("patch_max", 2, 0.25, 1)
    assert changed.config() == {
        **detector.config(),
        "score_name": "patch_max",
        "patch_size": 2,
        "sigma": 0.25,
        "draws": 1,
    }
    assert changed.purifier.denoiser is detector.purifier.denoiser
    assert torch.equal(changed.noise_, detector.noise_[:1])
    assert changed.threshold_ is None
    assert changed.fingerprint() != before == detector.fingerprint()
    residual = images - detector.reconstruct(images + 0.25 * detector.noise_[0], 0.25)
    torch.testing.assert_close(changed.score(images), changed.scores_of_residual(residual, "patch_max"))


def test_several_shots_and_bfloat16_reach_the_network(detector, tiny) -> None:
    images = tiny.images(2)
    for options in ({"shots": 3}, {"autocast": True}):
        assert not torch.equal(detector.with_options(**options).score(images), detector.score(images))


@pytest.mark.parametrize(
    ("sigma", "nearest"), [(0.01, 0), (0.19, 0), (0.21, 1), (0.4, 1), (0.79, 1), (0.81, 2), (9.0, 2)]
)
def test_statistics_are_those_of_the_nearest_noise(sigma, nearest, detector, tiny) -> None:
    """On the scale of the logarithm: .2 lies between .1 and .4."""
    changed = detector.with_options(score_name="root_max", sigma=sigma)
    residual = tiny.images(3) - 0.5
    root = safe_root(multiscale_error(residual))
    by_hand = (root - detector.mean_root_[nearest]).abs().flatten(1).amax(1)
    assert torch.equal(changed.scores_of_residual(residual, "root_max"), by_hand)
    squared = (multiscale_error(residual) - detector.mean_error_[nearest]).abs().flatten(1).amax(1)
    assert torch.equal(changed.scores_of_residual(residual, "paper"), squared)


def test_statistics_are_the_mean_maps_of_normals(detector, tiny) -> None:
    train = tiny.images(12, seed=1)
    noise = detector.noise_.repeat(4, 1, 1, 1)  # three draws take turns
    residual = train - detector.reconstruct(train + 0.4 * noise, 0.4)
    torch.testing.assert_close(detector.mean_error_[1], multiscale_error(residual).mean(0))
    torch.testing.assert_close(detector.mean_root_[1], safe_root(multiscale_error(residual)).mean(0))


def test_statistics_of_other_scales_are_not_reused(detector, tiny) -> None:
    for options in ({"scales": [1, 2]}, {"filter_size": 1}):
        changed = detector.with_options(score_name="root_max", **options)
        with pytest.raises(InputError, match="no statistics of normals"):
            changed.score(tiny.images(1))
        changed.fit_statistics(tiny.images(12, seed=1), [0.5])
        assert bool(torch.isfinite(changed.score(tiny.images(1))).all())
        assert detector.with_options(**options).score(tiny.images(1)).shape == (1,)


def test_the_relative_score_weighs_windows_by_the_error_of_normals(detector, tiny) -> None:
    changed = detector.with_options(score_name="patch_relative", sigma=0.4, patch_size=3)
    residual = tiny.images(3) - 0.5
    weights = patch_weights(detector.mean_error_[1], 3)
    by_hand = (patch_norms(residual, 3) * weights).flatten(1).amax(1)
    assert torch.equal(changed.scores_of_residual(residual, "patch_relative"), by_hand)
    assert bool((by_hand < changed.scores_of_residual(residual, "patch_max")).any())


@pytest.mark.parametrize("name", SCORE_NAMES)
@pytest.mark.parametrize("patch_size", [2, 3])
def test_anomaly_maps_have_image_size_and_point_at_the_defect(
    name, patch_size, detector, tiny, monkeypatch
) -> None:
    changed = detector.with_options(score_name=name, patch_size=patch_size)
    images = torch.full((2, *tiny.shape), 0.5)
    images[1, :, 5:7, 1:3] = 1.0
    monkeypatch.setattr(changed.purifier, "reconstruct", lambda noisy, sigma: torch.full_like(noisy, 0.5))
    maps = changed.anomaly_map(images)
    assert maps.shape == (2, 8, 8)
    assert not maps.requires_grad
    row, column = divmod(int(maps[1].argmax()), 8)
    assert 4 <= row <= 7
    assert 0 <= column <= 3
    assert maps[0].max() < maps[1].max()


def test_the_paper_score_declares_no_constant(detector) -> None:
    assert detector.with_options(score_name="paper").pair_lipschitz is None
    assert detector.with_options(score_name="l2").pair_lipschitz == 1.0
    assert 0 < detector.with_options(score_name="root_max").pair_lipschitz <= 1.0


def steepest(score, start: Tensor, steps: int = 40) -> float:
    """Largest |S(x') - S(x)| / |x' - x| found by gradient ascent over x', in float64."""
    base, moved = (
        score(start),
        start + 0.05 * torch.randn(start.shape, generator=torch.Generator().manual_seed(0)),
    )
    best = 0.0
    for _ in range(steps):
        moved = moved.detach().requires_grad_()
        slope = (score(moved) - base).abs() / (moved - start).flatten(1).norm(dim=1)
        best = max(best, float(slope.detach().max()))
        (gradient,) = torch.autograd.grad(slope.sum(), moved)
        moved = moved + 0.05 * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
    return best


@pytest.mark.parametrize("name", ["l2", "patch_max", "patch_relative", "root_max"])
def test_no_pair_of_references_beats_the_constant(name, detector, tiny) -> None:
    changed = detector.with_options(score_name=name)
    changed.mean_root_ = changed.mean_root_.double()
    reconstruction, start = tiny.images(6, seed=8).double(), tiny.images(6, seed=9).double()

    def score(reference: Tensor) -> Tensor:
        return changed.score_pair(reference, reconstruction)

    for seed, scale in enumerate((1e-4, 1e-2, 1.0)):
        step = scale * torch.randn(start.shape, generator=torch.Generator().manual_seed(seed)).double()
        slope = (score(start + step) - score(start)).abs() / step.flatten(1).norm(dim=1)
        assert float(slope.max()) <= changed.pair_lipschitz * (1 + 1e-9)
    found = steepest(score, start)
    assert found <= changed.pair_lipschitz * (1 + 1e-9)
    assert found > 0.5 * changed.pair_lipschitz


def test_the_squared_score_is_not_lipschitz(detector, tiny) -> None:
    changed = detector.with_options(score_name="paper")
    image = tiny.images(1)
    change = changed.score_pair(image + 30.0, image) - changed.score_pair(image + 29.0, image)
    assert float(change) / 8.0 > 1.0  # |difference of the references| = sqrt(64)


@pytest.mark.parametrize("bad", [-0.5, torch.nan])
def test_a_folder_whose_windows_would_weigh_more_than_one_is_refused(
    bad: float, detector, tiny, tmp_path: Path
) -> None:
    relative = detector.with_options(score_name="patch_relative")
    relative.mean_error_ = relative.mean_error_.clone()
    relative.mean_error_[1, 2, 3] = bad
    relative.save_pretrained(tmp_path)
    with pytest.raises(
        InputError, match=f"mean_error_ goes down to {bad}, need at least 0 .* of diffusion; fit it again"
    ):
        load_detector(tmp_path)


def test_what_cannot_be_used_is_refused_in_one_line(detector, tiny, tmp_path: Path) -> None:
    for options, message in (
        ({"draws": 9}, "draws: got 9, this detector stores 3"),
        ({"draws": 0}, "draws: got 0"),
        ({"patch_size": 0}, "patch_size: got 0"),
        ({"shots": 0}, "shots: got 0"),
        ({"sigma": -1.0}, "sigma"),
        ({"seed": 4}, "stored draws are of seed 0"),
    ):
        with pytest.raises(InputError, match=message):
            detector.with_options(**options)
    with pytest.raises(InputError, match=r"train_ddpm\.py"):
        DiffusionDetector().fit(tiny.images(3))
    with pytest.raises(InputError, match="no network"):
        DiffusionDetector().reconstruct(tiny.images(1), 0.5)
    with pytest.raises(InputError, match="not fitted"):
        DiffusionDetector().pair_lipschitz  # noqa: B018
    with pytest.raises(InputError, match="ends at"):
        detector.with_options(sigma=1e4).score(tiny.images(1))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_network_scores_as_before_and_keeps_its_identity(tiny) -> None:
    if shutil.which("g++") is None:
        pytest.skip("no g++ here, which torch.compile needs on a CPU")
    plain, compiled = tiny.detector(), tiny.detector()
    compiled.compile_network()
    images = tiny.images(4, seed=2)
    assert torch.allclose(compiled.score(images), plain.score(images), rtol=1e-4)
    assert compiled.fingerprint() == plain.fingerprint()
