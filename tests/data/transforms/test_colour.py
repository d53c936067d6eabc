from __future__ import annotations

import numpy as np
import torch
from torchvision.transforms.v2 import functional as tv

from diffad.data.transforms.colour import draw_jitter, grey, jitter, turn_hue


def colours() -> torch.Tensor:
    return torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def drawn(**factors: float) -> dict[str, torch.Tensor]:
    still = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
    return {
        name: torch.full((3,), value, dtype=torch.float64) for name, value in {**still, **factors}.items()
    }


def test_brightness_contrast_and_saturation_agree_with_torchvision():
    images = colours()
    references = {
        "brightness": tv.adjust_brightness,
        "contrast": tv.adjust_contrast,
        "saturation": tv.adjust_saturation,
    }
    for name, reference in references.items():
        for factor in (0.3, 1.7):
            found = jitter(images, drawn(**{name: factor}))
            assert torch.allclose(found, reference(images, factor), atol=2e-3), (
                name
            )  # it rounds 0.2989 for 0.299


def test_hue_turns_keep_the_luma_and_compose_to_the_identity():
    images = colours()
    turned = turn_hue(images, torch.tensor([0.1, 0.25, -0.4], dtype=torch.float64))
    assert torch.allclose(grey(turned), grey(images))
    assert float((turned - images).abs().max()) > 0.1
    back = turn_hue(turned, torch.tensor([0.9, 0.75, 0.4], dtype=torch.float64))
    assert torch.allclose(back, images)


def test_one_channel_knows_brightness_and_contrast_only():
    images = colours()[:, :1]
    assert torch.equal(jitter(images, drawn(saturation=0.1, hue=0.3)), images)
    assert torch.equal(grey(images), images)


def test_factors_are_drawn_within_their_strengths():
    rows = [draw_jitter(np.random.default_rng(seed), 0.4, 0.8, 1.5, 0.1) for seed in range(300)]
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.2, 1.8),
        ("saturation", 0, 2.5),
        ("hue", -0.1, 0.1),
    ):
        values = [row[name] for row in rows]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
