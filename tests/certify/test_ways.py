from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from certify.checks import InputError
from certify.smoothing import SmoothedDetector
from certify.ways import make_base

SIGMA = 0.25


def test_each_way_scores_what_it_says(images: Tensor, shrink) -> None:
    noisy = images + 0.1
    expected = {
        "input": noisy.flatten(1).norm(dim=1),
        "denoise": 0.8 * noisy.flatten(1).norm(dim=1),
        "reference": (images[:1] - 0.8 * noisy).flatten(1).norm(dim=1),
    }
    for way, scores in expected.items():
        base, lipschitz = make_base(shrink, way, sigma=SIGMA)
        torch.testing.assert_close(base(images[:1], noisy), scores)
        assert lipschitz == (1.0 if way == "reference" else 0.0)


def test_a_purifier_given_is_the_one_used(images: Tensor, shrink) -> None:
    class Purifier:
        def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
            return noisy + sigma

    base, _ = make_base(shrink, "denoise", sigma=SIGMA, purifier=Purifier())
    torch.testing.assert_close(base(images[:1], images), (images + SIGMA).flatten(1).norm(dim=1))
    base, _ = make_base(shrink, "reference", sigma=SIGMA, purifier=Purifier())
    torch.testing.assert_close(base(images[:1], images[:1]), torch.tensor([4 * SIGMA]))


def test_what_a_way_needs_is_asked_for_by_name(shrink) -> None:
    def plain(images: Tensor) -> Tensor:
        return images.flatten(1).sum(dim=1)

    for way, name in (("denoise", "reconstruct"), ("reference", "reconstruct"), ("none", "score_interval")):
        with pytest.raises(InputError, match=name):
            SmoothedDetector(plain, SIGMA, way)
    shrink.pair_lipschitz = shrink.lipschitz = None
    with pytest.raises(InputError, match="proven constant pair_lipschitz"):
        SmoothedDetector(shrink, SIGMA, "reference")
    with pytest.raises(InputError, match="proven constant lipschitz"):
        SmoothedDetector(shrink, None, "none")
    with pytest.raises(InputError, match="needs one"):
        SmoothedDetector(shrink, None, "input")


def test_a_refused_way_names_the_detector_and_the_ways_it_has(shrink) -> None:
    def brightness(images: Tensor) -> Tensor:
        return images.flatten(1).mean(dim=1)

    with pytest.raises(InputError, match="which brightness lacks; use 'input'"):
        SmoothedDetector(brightness, SIGMA, "none")
    shrink.name, shrink.pair_lipschitz = "shrink", None
    assert shrink.lipschitz is not None
    with pytest.raises(InputError, match="which shrink lacks; use 'none' or 'input'"):
        SmoothedDetector(shrink, SIGMA, "reference")
    SmoothedDetector(shrink, None, "none")


def test_batch_statistics_and_dropout_are_refused_in_training_mode(images: Tensor) -> None:
    for layer in (nn.BatchNorm2d(1), nn.Dropout(0.5)):
        network = nn.Sequential(layer, nn.Flatten(), nn.Linear(16, 1), nn.Flatten(0))
        with pytest.raises(InputError, match="training mode"):
            SmoothedDetector(network, SIGMA, "input")
        assert SmoothedDetector(network.eval(), SIGMA, "input", n=50, batch_size=50).score(
            images, range(6)
        ).shape == (6,)


def test_batch_norm_without_running_statistics_is_refused_in_either_mode() -> None:
    layer = nn.BatchNorm2d(1, track_running_stats=False)
    for network in (nn.Sequential(layer), nn.Sequential(layer).eval()):
        with pytest.raises(InputError, match="Sequential: BatchNorm2d keeps no running statistics"):
            SmoothedDetector(network, SIGMA, "input")
