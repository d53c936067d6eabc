from __future__ import annotations

import math

import pytest
import torch

from certify.checks import InputError
from diffad.baselines.pixel_mean import PixelMean
from diffad.baselines.pixel_nn import PixelNN

IMAGES = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("count", "quantile", "rank"), [(19, 0.95, 19), (20, 0.95, 20), (99, 0.95, 95), (9, 0.5, 5)]
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
