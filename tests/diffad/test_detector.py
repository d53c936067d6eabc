from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from certify.checks import InputError
from certify.noise import gaussian_noise
from diffad import load_detector
from diffad.baselines.pixel_mean import PixelMean
from diffad.baselines.pixel_nn import PixelNN

IMAGES = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("count", "quantile", "rank"),
    [(19, 0.95, 19), (20, 0.95, 20), (99, 0.95, 95), (99, 0.95 + 1e-12, 96), (9, 0.5, 5)],
)
def test_threshold_is_the_conformal_order_statistic(count: int, quantile: float, rank: int) -> None:
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    detector = PixelMean().fit(IMAGES)
    threshold = detector.calibrate(images, quantile)
    assert threshold == detector.threshold_ == sorted(detector.score_array(images))[rank - 1]
    assert rank >= math.floor((count + 1) * quantile)


def test_too_few_images_for_the_quantile_are_refused() -> None:
    detector = PixelMean().fit(IMAGES)
    with pytest.raises(InputError, match="at least 19"):
        detector.calibrate(IMAGES[:18])
    with pytest.raises(InputError, match="quantile"):
        detector.calibrate(IMAGES, 1.0)
    assert detector.threshold_ is None


def test_predict_without_threshold_is_refused() -> None:
    with pytest.raises(InputError, match="no threshold"):
        PixelMean().fit(IMAGES).predict(IMAGES)


def test_scoring_and_saving_before_fit_are_refused(tmp_path: object) -> None:
    for use in (
        lambda: PixelMean().score(IMAGES),
        lambda: PixelMean().score_interval(IMAGES),
        lambda: PixelMean().save_pretrained(f"{tmp_path}"),
        lambda: PixelMean().fingerprint(),
    ):
        with pytest.raises(InputError, match="not fitted"):
            use()


def test_fitting_again_forgets_the_threshold() -> None:
    detector = PixelMean().fit(IMAGES, calibration=IMAGES)
    assert detector.fit(IMAGES, seed=7).threshold_ is None
    assert detector.fit_info == {"images": 30, "seed": 7}


def test_a_fit_that_fails_leaves_nothing_to_score() -> None:
    class Failing(PixelMean):
        def _fit(self, train: torch.Tensor, seed: int) -> None:
            super()._fit(train, seed)
            if seed == 1:
                raise RuntimeError("interrupted")

    detector = Failing().fit(IMAGES, calibration=IMAGES)
    with pytest.raises(InputError, match="noise_copies"):
        detector.fit(IMAGES, noise_copies=2)
    assert detector.threshold_ is not None
    assert len(detector.score(IMAGES)) == 30
    with pytest.raises(RuntimeError):
        detector.fit(IMAGES, seed=1)
    with pytest.raises(InputError, match="not fitted"):
        detector.score(IMAGES)


def test_fingerprint_tells_scores_apart_but_not_thresholds() -> None:
    first, same, more = (
        PixelNN().fit(IMAGES),
        PixelNN().fit(IMAGES, calibration=IMAGES),
        PixelNN(k=2).fit(IMAGES),
    )
    assert first.fingerprint() == same.fingerprint()
    assert len({first.fingerprint(), more.fingerprint(), PixelNN().fit(IMAGES[:29]).fingerprint()}) == 3


def test_gradient_of_the_images_only() -> None:
    detector = PixelNN().fit(IMAGES.clone().requires_grad_())
    assert not any(tensor.requires_grad for tensor in detector.state_dict().values())


def test_fitting_on_noise_shows_the_detector_keyed_copies_of_every_image() -> None:
    detector = PixelNN().fit(IMAGES, seed=4, noise_sigma=0.25, noise_copies=2)
    assert detector.bank.shape == (60, 16)
    for copy, image in ((0, 0), (1, 29)):
        noise = torch.from_numpy(gaussian_noise(4, image, "fit", copy, (1, 4, 4)))
        expected = (IMAGES[image].double() + 0.25 * noise).float().flatten()
        torch.testing.assert_close(detector.bank[30 * copy + image], expected)
    assert float(detector.bank.min()) < 0.0  # noise is not clipped
    assert detector.fit_info == {"images": 30, "seed": 4, "noise_sigma": 0.25, "noise_copies": 2}
    same, other = (PixelNN().fit(IMAGES, seed=s, noise_sigma=0.25, noise_copies=2) for s in (4, 5))
    assert detector.fingerprint() == same.fingerprint() != other.fingerprint()


def test_fit_noise_is_saved(tmp_path: Path) -> None:
    PixelMean().fit(IMAGES, noise_sigma=0.25).save_pretrained(tmp_path)
    info = load_detector(tmp_path).fit_info
    assert info == {"images": 30, "seed": 0, "noise_sigma": 0.25, "noise_copies": 1}
    assert [type(info[key]) for key in ("seed", "noise_sigma")] == [int, float]


def test_images_are_checked_before_noise_and_noise_options_by_name() -> None:
    with pytest.raises(InputError, match=r"train: values in"):
        PixelMean().fit(IMAGES + 1.0, noise_sigma=0.25)
    with pytest.raises(InputError, match="noise_sigma"):
        PixelMean().fit(IMAGES, noise_sigma=0.0)
    with pytest.raises(InputError, match="at least 1"):
        PixelMean().fit(IMAGES, noise_sigma=0.25, noise_copies=0)
    with pytest.raises(InputError, match="without noise_sigma"):
        PixelMean().fit(IMAGES, noise_copies=2)
