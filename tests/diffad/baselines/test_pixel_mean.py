from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from diffad.baselines.pixel_mean import PixelMean


def test_score_is_the_distance_to_the_mean() -> None:
    train = torch.rand(20, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    images = torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    detector = PixelMean().fit(train)
    wanted = np.sqrt(
        ((images.numpy().astype(np.float64) - train.numpy().astype(np.float64).mean(0)) ** 2).sum((1, 2, 3))
    )
    np.testing.assert_allclose(detector.score(images), wanted, rtol=1e-6)
    lower, upper = detector.score_interval(images)
    for image, low, high in zip(images, lower, upper, strict=True):
        pairs = zip(image.flatten().tolist(), detector.mean.flatten().tolist(), strict=True)
        square = sum(((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs), Fraction(0))
        assert Fraction(low) ** 2 <= square <= Fraction(high) ** 2


def test_the_map_is_the_difference_to_the_mean() -> None:
    train = torch.rand(20, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    images = torch.rand(6, 3, 5, 4, generator=torch.Generator().manual_seed(1))
    detector = PixelMean().fit(train)
    maps = detector.anomaly_map(images)
    np.testing.assert_allclose(maps, (images - train.mean(0)).norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(maps.flatten(1).norm(dim=1), detector.score(images), rtol=1e-6)


def test_the_constant_is_attained() -> None:
    detector = PixelMean().fit(torch.full((2, 1, 4, 4), 0.5))
    near, far = torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.9)
    gap = detector.score(far) - detector.score(near)
    torch.testing.assert_close(gap[0], (far - near).norm())
