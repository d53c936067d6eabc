from __future__ import annotations

import numpy as np
import pytest
import torch

from certify.checks import InputError
from diffad.baselines import closed_form
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.pixel_mean import PixelMean
from diffad.baselines.pixel_nn import PixelNN

GENERATOR = torch.Generator().manual_seed(0)
TRAIN = torch.rand(30, 1, 4, 4, generator=GENERATOR)
IMAGES = torch.rand(7, 1, 4, 4, generator=GENERATOR)
NOISE = torch.randn(5, 1, 4, 4, generator=GENERATOR)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 5.0])
def test_reconstruction_is_the_posterior_mean(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_form, "_BLOCK", 60)
    noisy = (IMAGES + sigma * NOISE[0]).numpy().astype(np.float64)
    bank = TRAIN.numpy().astype(np.float64)
    wanted = []
    for image in noisy:
        exponents = -((image - bank) ** 2).sum((1, 2, 3)) / (2 * sigma**2)
        weights = np.exp(exponents - exponents.max())
        wanted.append((weights[:, None, None, None] * bank).sum(0) / weights.sum())
    found = ClosedForm().fit(TRAIN).reconstruct(torch.from_numpy(noisy).float(), sigma)
    np.testing.assert_allclose(found, np.stack(wanted), atol=2e-6)


def test_limits_are_the_mean_and_the_nearest_image() -> None:
    detector = ClosedForm().fit(TRAIN)
    far = detector.score_pair(IMAGES, detector.reconstruct(IMAGES + 1e3 * NOISE[0], 1e3))
    torch.testing.assert_close(far, PixelMean().fit(TRAIN).score(IMAGES), rtol=1e-2, atol=1e-2)
    near = detector.score_pair(IMAGES, detector.reconstruct(IMAGES, 1e-3))
    torch.testing.assert_close(near, PixelNN().fit(TRAIN).score(IMAGES))


def test_score_is_the_median_over_the_draws() -> None:
    detector = ClosedForm(sigma=0.4).fit(TRAIN)
    errors = torch.stack(
        [(IMAGES - detector.reconstruct(IMAGES + 0.4 * draw, 0.4)).flatten(1).norm(dim=1) for draw in NOISE]
    )
    torch.testing.assert_close(detector.score(IMAGES, NOISE), errors.sort(0).values[2])
    torch.testing.assert_close(detector.score(IMAGES, NOISE[:4]), errors[:4].sort(0).values[1])


def test_stored_draws_follow_the_constructors_seed() -> None:
    first, same, other = (ClosedForm(draws=3, seed=seed).fit(TRAIN, seed=9) for seed in (1, 1, 2))
    assert first.noise.shape == (3, 1, 4, 4)
    assert torch.equal(first.noise, same.noise)
    assert not torch.equal(first.noise, other.noise)
    assert torch.equal(first.score(IMAGES), first.score(IMAGES, first.noise))


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="sigma"):
        ClosedForm(sigma=0.0)
    with pytest.raises(InputError, match="draws"):
        ClosedForm(draws=0)
    with pytest.raises(InputError, match="sigma"):
        ClosedForm().fit(TRAIN).reconstruct(IMAGES, -1.0)
    with pytest.raises(InputError, match="fitted on"):
        ClosedForm().fit(TRAIN).reconstruct(IMAGES[:, :, :2], 1.0)
