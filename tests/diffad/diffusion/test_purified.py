"""DiffPure in front of another detector: its score by hand, its certificate, its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from certify import SmoothedDetector
from certify.checks import InputError
from diffad import load_detector
from diffad.attacks import attack
from diffad.attacks.attack import as_target
from diffad.attacks.surrogates import surrogate_names
from diffad.baselines.pixel_nn import PixelNN
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser
from diffad.diffusion.purified import Purified
from diffad.diffusion.purifier import Purifier
from diffad.diffusion.schedule import sigmas_of_schedule
from diffad.interop import SklearnDetector, as_detector
from diffad.plan import default_smoothing

SHAPE = (1, 8, 8)
NORMALS = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Denoiser.build(SHAPE, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_score_is_that_of_the_purified_image(denoiser: Denoiser, steps: int) -> None:
    inner = PixelNN().fit(NORMALS)
    detector = Purified.of(inner, denoiser, sigma=0.1, steps=steps, draws=3).fit(NORMALS)
    purifier = Purifier(denoiser, shots=steps)
    parts = [inner.score(purifier.purify(IMAGES, 0.1, e.expand_as(IMAGES))) for e in detector.noise_]
    torch.testing.assert_close(detector.score(IMAGES), torch.stack(parts).mean(0))
    assert detector.score_name == "pixel_nn"


def test_a_timestep_names_the_noise_of_the_schedule(denoiser: Denoiser) -> None:
    sigma = float(sigmas_of_schedule(denoiser.alphas_cumprod)[50])
    by_step, by_sigma = (
        Purified.of(PixelNN(), denoiser, draws=2, **given).fit(NORMALS)
        for given in ({"timestep": 50}, {"sigma": sigma})
    )
    assert by_step.sigma == sigma
    assert torch.equal(by_step.score(IMAGES), by_sigma.score(IMAGES))
    with pytest.raises(InputError, match="the schedule has 1000 steps"):
        Purified.of(PixelNN(), denoiser, timestep=1000).fit(NORMALS)


def test_it_is_certified_by_denoise_as_the_detector_behind_the_purifier(denoiser: Denoiser) -> None:
    inner = PixelNN().fit(NORMALS)
    detector = Purified.of(inner, denoiser, sigma=0.1).fit(NORMALS)
    diffusion = DiffusionDetector.from_denoiser(denoiser, SHAPE).fit(NORMALS)
    itself = SmoothedDetector(detector, sigma=0.2, smoothing="denoise", n=50)
    apart = SmoothedDetector(inner, sigma=0.2, smoothing="denoise", n=50, purifier=diffusion)
    drawn = [one.noisy_scores(IMAGES, range(4), "evaluate") for one in (itself, apart)]
    np.testing.assert_array_equal(*drawn)
    assert default_smoothing(detector) == "denoise"


def test_attacks_go_through_the_purifier_and_may_go_around_it(denoiser: Denoiser) -> None:
    detector = Purified.of(PixelNN(k=2), denoiser, sigma=0.1, steps=2, draws=1).fit(NORMALS)
    labels = np.array([0, 0, 1, 1])
    for objective in (None, "bpda"):
        result = attack(detector, IMAGES, labels, norm="l2", eps=0.5, steps=3, objective=objective)
        assert (result.scores[:2] > result.clean_scores[:2]).all()
        assert (result.scores[2:] < result.clean_scores[2:]).all()
    smoothed = SmoothedDetector(detector, sigma=0.1, smoothing="denoise", n=50)
    assert {"bpda", "checkpointed", "1_shot"} < set(surrogate_names(as_target(smoothed)))


def test_the_folder_holds_both_and_can_be_moved(denoiser: Denoiser, tmp_path: Path) -> None:
    detector = Purified.of(PixelNN(), denoiser, sigma=0.1, draws=2).fit(NORMALS)
    detector.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = load_detector(tmp_path / "moved")
    assert torch.equal(loaded.score(IMAGES), detector.score(IMAGES))
    assert loaded.fingerprint() == detector.fingerprint()


def test_arguments_of_the_detector_behind_are_part_of_the_identity(denoiser: Denoiser) -> None:
    one, two = (Purified.of(PixelNN(k=k), denoiser, draws=2).fit(NORMALS) for k in (1, 2))
    assert one.fingerprint() != two.fingerprint()


def test_the_schedule_is_part_of_the_identity_and_of_what_is_loaded(
    denoiser: Denoiser, tmp_path: Path
) -> None:
    other = Denoiser.build(
        SHAPE,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        beta_schedule="squaredcos_cap_v2",
    )
    other.unet.load_state_dict(denoiser.unet.state_dict())
    one, two = (Purified.of(PixelNN(), network, draws=2).fit(NORMALS) for network in (denoiser, other))
    assert not torch.equal(one.score(IMAGES), two.score(IMAGES))
    assert one.fingerprint() != two.fingerprint()
    one.save_pretrained(tmp_path)
    config = tmp_path / "diffusion" / "scheduler" / "scheduler_config.json"
    config.write_text(
        config.read_text().replace('"prediction_type": "epsilon"', '"prediction_type": "sample"')
    )
    with pytest.raises(InputError, match="were changed since"):
        load_detector(tmp_path)


def test_stored_draws_are_independent_of_the_noise_of_the_steps(denoiser: Denoiser) -> None:
    detector = Purified.of(PixelNN(), denoiser, steps=3, draws=4).fit(NORMALS)
    generator = torch.Generator().manual_seed(detector.seed)
    steps = torch.stack([torch.randn(SHAPE, generator=generator) for _ in range(2)]).flatten(1)
    correlation = (detector.noise_.flatten(1) @ steps.T / steps.shape[1]).abs()
    assert correlation.max() < 0.5  # 4 standard deviations of independent noise


def test_a_function_behind_says_whether_it_has_a_gradient_once_it_is_fitted(denoiser: Denoiser) -> None:
    contrast = as_detector(lambda pixels: pixels.reshape(len(pixels), -1).std(1), numpy=True)
    detector = Purified.of(contrast, denoiser, draws=2).fit(NORMALS)
    assert not detector.has_gradient
    assert detector.surrogates() == {}


def test_noisy_normals_are_refused_where_the_detector_behind_is_fitted(denoiser: Denoiser) -> None:
    with pytest.raises(InputError, match="is fitted already"):
        Purified.of(PixelNN().fit(NORMALS), denoiser).fit(NORMALS, noise_sigma=0.1)


@pytest.mark.parametrize(
    "bad",
    [{"steps": 1.5}, {"draws": True}, {"timestep": 2.5}, {"sigma": "a"}, {"seed": "x"}, {"seed": -1}],
)
def test_arguments_of_another_kind_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises((InputError, TypeCheckError), match=next(iter(bad))):
        Purified(**bad)


def test_a_black_box_behind_stays_one(denoiser: Denoiser) -> None:
    forest = SklearnDetector("IsolationForest", {"n_estimators": 5})
    detector = Purified.of(forest, denoiser, sigma=0.1, draws=2).fit(NORMALS)
    assert not detector.has_gradient
    assert detector.surrogates() == {}
    with pytest.raises(InputError, match="no gradient"):
        attack(detector, IMAGES, np.array([0, 0, 1, 1]), norm="l2", eps=0.5, steps=2)


def test_it_is_named_on_the_command_line(denoiser: Denoiser, tmp_path: Path) -> None:
    DiffusionDetector.from_denoiser(denoiser, SHAPE).fit(NORMALS).save_pretrained(tmp_path / "diffusion")
    PixelNN().fit(NORMALS).save_pretrained(tmp_path / "pixel_nn")
    for what in ("pixel_nn", str(tmp_path / "pixel_nn")):
        detector = load_detector(f"purified:{what},diffusion={tmp_path / 'diffusion'},sigma=0.1,draws=2")
        assert isinstance(detector, Purified)
        assert (detector.sigma, detector.draws) == (0.1, 2)
        assert detector.fit(NORMALS).score(IMAGES).shape == (4,)


def test_what_does_not_fit_together_is_refused(denoiser: Denoiser, tmp_path: Path) -> None:
    PixelNN().fit(NORMALS).save_pretrained(tmp_path / "pixel_nn")
    with pytest.raises(InputError, match="need one of them"):
        Purified(sigma=0.1, timestep=3)
    with pytest.raises(InputError, match="got steps = 0"):
        Purified(steps=0)
    with pytest.raises(InputError, match="has no parts"):
        Purified().fit(NORMALS)
    with pytest.raises(InputError, match=r"pixel_nn behind takes \(1, 4, 4\), got \(1, 8, 8\)"):
        Purified.of(PixelNN().fit(NORMALS[..., :4, :4]), denoiser).fit(NORMALS)
    with pytest.raises(InputError, match="names no diffusion model"):
        load_detector("purified:pixel_nn")
    with pytest.raises(InputError, match="need a diffusion detector"):
        load_detector(f"purified:pixel_nn,diffusion={tmp_path / 'pixel_nn'}")
