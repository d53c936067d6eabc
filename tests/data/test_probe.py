from __future__ import annotations

import pytest
import torch

from diffad.data.probe import correlation_with, high_pass, near_duplicate_groups, probe
from diffad.data.records import ImageSet


def noise(count: int, seed: int = 0, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))


def test_high_pass_forgets_exposure_and_slow_light():
    images = noise(3)
    assert high_pass(torch.full((1, 1, 16, 16), 0.7)).abs().max() < 1e-6
    assert torch.allclose(high_pass(images * 0.5 + 0.3), 0.5 * high_pass(images), atol=1e-6)
    assert high_pass(noise(1, side=200)).shape[-1] == 64


def test_correlation_sees_another_exposure_and_nothing_else():
    bank = noise(300)
    correlation = correlation_with(torch.cat([0.5 * bank[:2] + 0.2, noise(2, seed=1)]), bank)
    assert correlation.shape == (4, 300)
    assert correlation[0].argmax() == 0
    assert correlation[0, 0] > 0.97
    assert correlation[2:].max() < 0.5


def test_aligned_objects_are_not_all_duplicates():
    shared = noise(1, seed=5)
    images = (0.8 * shared + 0.2 * noise(40)).clamp(0, 1)
    assert near_duplicate_groups(images) == []


def test_groups_are_connected_components():
    images = noise(600)  # more than one chunk
    images[599] = 0.9 * images[10]
    images[300] = 0.8 * images[599]
    assert near_duplicate_groups(images) == [[10, 300, 599]]


def test_blank_images_correlate_with_nothing():
    images = torch.cat([torch.zeros(3, 1, 16, 16), noise(5)])
    assert correlation_with(images, images)[:3, 3:].abs().max() < 0.5
    assert torch.isfinite(correlation_with(images, images)).all()


def test_probe_finds_a_leaking_split(image_set):
    train = image_set(30, "train")
    leaked = ImageSet(
        0.9 * train.images[:6], torch.zeros(6, dtype=torch.int64), tuple("abcdef"), ("good",) * 6, (None,) * 6
    )
    test = ImageSet.concat([leaked, image_set(6, "bad", defects=("hole",) * 6)])
    facts = probe(train, test)
    assert facts["near_duplicate_auroc"] == 1.0
    assert facts["near_duplicates_normal"] == 6
    assert facts["near_duplicates_anomalous"] == 0
    fair = probe(train, image_set(60, "fair", defects=("good", "hole") * 30))
    assert fair["near_duplicate_auroc"] == pytest.approx(0.5, abs=0.2)
    assert fair["near_duplicates_normal"] == 0
