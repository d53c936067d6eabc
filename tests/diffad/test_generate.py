"""Sampling by denoising and renoising, on denoisers whose samples are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.baselines.closed_form import ClosedForm
from diffad.generate import generate

TRAIN = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_posterior_mean_of_a_bank_samples_the_bank_evenly() -> None:
    bank = ClosedForm().fit(TRAIN)
    samples = generate(bank.reconstruct, TRAIN, 600, sigmas=(4.0, 2.0, 1.0, 0.5, 0.25, 0.12, 0.05))
    distance = torch.cdist(samples.flatten(1), TRAIN.flatten(1))
    assert float(distance.amin(1).median()) < 1e-3
    counts = torch.bincount(distance.argmin(1), minlength=12)
    assert int(counts.min()) > 0
    assert int(counts.max()) < 200


def test_each_level_sees_the_noise_that_it_is_told_of() -> None:
    seen: list[tuple[float, float]] = []

    def constant(noisy: Tensor, sigma: float) -> Tensor:
        seen.append((sigma, float((noisy - 0.5).std())))
        return torch.full_like(noisy, 0.5)

    train = torch.full((2, 1, 8, 8), 0.5)
    images = generate(constant, train, 3, sigmas=(2.0, 0.5))
    assert images.shape == (3, 1, 8, 8)
    assert [sigma for sigma, _ in seen] == [2.0, 0.5]
    for sigma, spread in seen:
        assert spread == pytest.approx(sigma, rel=0.05)


def test_more_images_begin_with_the_same_and_seeds_matter() -> None:
    reconstruct = ClosedForm().fit(TRAIN).reconstruct
    few, many, other = (generate(reconstruct, TRAIN, n, seed=s) for n, s in ((20, 0), (300, 0), (20, 1)))
    assert torch.equal(few, many[:20])
    assert not torch.equal(few, other)
    assert few.dtype == TRAIN.dtype
    assert 0.0 <= float(many.min()) <= float(many.max()) <= 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [({"count": 0}, "at least 1"), ({"sigmas": (1.0, 1.0)}, "falling"), ({"sigmas": (1.0, 0.0)}, "above 0")],
)
def test_what_makes_no_images_is_refused(change, message) -> None:
    options = {"count": 3, "sigmas": (1.0,), **change}
    with pytest.raises(InputError, match=message):
        generate(lambda noisy, sigma: noisy, TRAIN, options["count"], sigmas=options["sigmas"])
