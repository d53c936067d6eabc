from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffad.data.cues import cue_probe, reordered, resampled, roughness, separation
from diffad.data.records import ImageSet, Record


def noise(count: int, seed: int, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 99), st.floats(0.1, 1.0))
@settings(max_examples=20, deadline=None)
def test_roughness_ignores_contrast_and_falls_by_resampling(seed: int, contrast: float) -> None:
    images = noise(3, seed)
    torch.testing.assert_close(roughness(images * contrast), roughness(images), rtol=1e-5, atol=0)
    assert bool((roughness(resampled(images)) < roughness(images)).all())


def test_roughness_of_known_images() -> None:
    flat, ramp = torch.full((1, 1, 8, 8), 0.4), torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    stripes = (torch.arange(8) % 2).float().expand(1, 1, 8, 8)
    found = roughness(torch.cat([flat, ramp, stripes]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64), rtol=0, atol=1e-9)


def test_copies_are_images_of_the_same_size() -> None:
    images = noise(2, 0, channels=3)
    assert resampled(images).shape == images.shape
    assert float(resampled(images).min()) >= 0
    assert torch.equal(reordered(images)[:, 0], images[:, 2])
    assert torch.equal(reordered(reordered(images)), images)


def test_separation_does_not_ask_which_is_higher() -> None:
    low, high = torch.zeros(4), torch.ones(5)
    assert separation(low, high) == separation(high, low) == 1.0
    assert separation(low, low) == 0.5


def test_a_set_that_was_resampled_shows() -> None:
    images = [*noise(20, 0), *resampled(noise(20, 1)), *noise(20, 2)]
    kinds = ["good"] * 20 + ["small/a"] * 20 + ["same/b"] * 20
    records = [
        Record(image, int(kind != "good"), f"{place}", kind)
        for place, (image, kind) in enumerate(zip(images, kinds, strict=True))
    ]
    found = cue_probe(ImageSet.from_records(records))
    assert found["roughness_auroc"]["small"] == pytest.approx(1.0)
    assert found["roughness_auroc"]["same"] < 0.75
    assert found["roughness_auroc_resampled"] == pytest.approx(1.0)
