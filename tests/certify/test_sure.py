"""The SURE score: unbiased by Stein, certified like any function of x + noise, differentiable."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from jaxtyping import Float
from scipy.stats import ncx2
from torch import Tensor

from certify.certificate import certify_scores
from certify.checks import InputError
from certify.sampler import sample_scores
from certify.smoothing import SmoothedDetector
from certify.sure import probe, sure_score
from certify.ways import make_base

SIGMA, FACTOR, PIXELS = 0.5, 0.6, 16


class Affine:
    """R(y) = c y + e, whose SURE score is a shifted noncentral chi-square."""

    def __init__(self, offset: Tensor) -> None:
        self.offset, self.calls = offset, 0

    def reconstruct(self, noisy: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return FACTOR * noisy + self.offset.to(noisy)


@pytest.fixture
def affine() -> Affine:
    return Affine(0.3 * torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(3)))


def squared_distance(images: Tensor, affine: Affine) -> Float[np.ndarray, " b"]:
    """|x - m|^2 to the fixed point m = e / (1 - c) of R, where the score is least."""
    centre = affine.offset / (1.0 - FACTOR)
    return (images.double() - centre.double()).flatten(1).square().sum(1).numpy()


def test_the_score_of_an_affine_denoiser_in_closed_form(images: Tensor, affine: Affine) -> None:
    """|R(y) - y| = (1 - c) |y - m| and the divergence is c d, whatever the probe and the step."""
    noisy = images + 0.4
    expected = (1 - FACTOR) ** 2 * squared_distance(noisy, affine) - PIXELS * SIGMA**2 * (1 - 2 * FACTOR)
    for step in (0.01, 0.1, 0.5):
        scores = sure_score(affine.reconstruct, noisy.double(), SIGMA, step)
        np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-7)
    assert affine.calls == 9
    assert sure_score(affine.reconstruct, noisy, SIGMA).dtype == noisy.dtype


def test_its_mean_over_the_noise_is_the_clean_squared_error(images: Tensor, affine: Affine) -> None:
    """Stein: E A(y) = E |R(x + sigma e) - x|^2, both in closed form and by the sampler's own draws."""
    clean_error = FACTOR**2 * PIXELS * SIGMA**2 + (1 - FACTOR) ** 2 * squared_distance(images, affine)
    mean_distance = PIXELS * SIGMA**2 + squared_distance(images, affine)
    mean_score = (1 - FACTOR) ** 2 * mean_distance - PIXELS * SIGMA**2 * (1 - 2 * FACTOR)
    np.testing.assert_allclose(mean_score, clean_error, rtol=1e-12)

    def both(clean: Tensor, noisy: Tensor) -> Tensor:
        error = (affine.reconstruct(noisy, SIGMA) - clean).flatten(1).square().sum(1)
        return torch.stack([sure_score(affine.reconstruct, noisy, SIGMA), error], dim=1)

    draws = sample_scores(
        both, images[:1], [0], sigma=SIGMA, n=20_000, seed=0, purpose="evaluate", batch_size=5000
    )[0]
    # R - y and R - x: a coefficient (1 - c) resp. c of the noise, so both spread by less than this
    tolerance = 5 * SIGMA**2 * math.sqrt(2 * PIXELS / 20_000) + 5 * SIGMA / math.sqrt(20_000)
    assert draws.mean(axis=0) == pytest.approx([clean_error[0], clean_error[0]], abs=tolerance)


def test_its_bounds_hold_the_worst_case(images: Tensor, affine: Affine) -> None:
    """Spec of the ball score: the true worst moves the distance to m by r; no Lipschitz term is needed."""
    image, radii, n = images[:1], (0.0, 0.2, 0.5), 20_000
    distance = float(np.sqrt(squared_distance(image, affine)[0]))

    def quantile(level: np.ndarray | float, far: float) -> np.ndarray:
        square = SIGMA**2 * ncx2.ppf(level, PIXELS, (far / SIGMA) ** 2)
        return (1 - FACTOR) ** 2 * square - PIXELS * SIGMA**2 * (1 - 2 * FACTOR)

    base, lipschitz = make_base(affine, "sure", sigma=SIGMA)
    assert lipschitz == 0.0
    draws = sample_scores(base, image, [0], sigma=SIGMA, n=n, seed=0, purpose="certify", batch_size=5000)
    exact = quantile((np.arange(n) + 0.5) / n, distance)[None]
    for scores in (draws, exact):
        bounds = certify_scores(scores, SIGMA, radii, 1e-6)
        for row, radius in enumerate(radii):
            assert bounds.lower[row, 0] <= quantile(0.5, max(distance - radius, 0.0))
            assert quantile(0.5, distance + radius) <= bounds.upper[row, 0]
    assert np.sort(draws[0])[n // 2] == pytest.approx(float(quantile(0.5, distance)), abs=0.03)


def test_it_reads_the_noisy_image_alone(images: Tensor, affine: Affine) -> None:
    base, _ = make_base(affine, "sure", sigma=SIGMA)
    noisy = images + 0.1
    torch.testing.assert_close(base(images[:1], noisy), base(torch.zeros(1, 1, 4, 4), noisy))


def test_it_works_for_rounded_reconstructions(images: Tensor, affine: Affine) -> None:
    """In bfloat16 the divergence is a difference of rounded numbers; the step keeps it useful."""

    def rounded(noisy: Tensor, sigma: float) -> Tensor:
        return affine.reconstruct(noisy, sigma).bfloat16().float()

    noisy = images + SIGMA * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    error = (sure_score(rounded, noisy, SIGMA) - sure_score(affine.reconstruct, noisy, SIGMA)).abs()
    assert float(error.max()) < 0.5 * SIGMA**2 * math.sqrt(2 * PIXELS)


def test_its_gradient_is_exact(images: Tensor, affine: Affine) -> None:
    def curved(noisy: Tensor, sigma: float) -> Tensor:
        return torch.sin(affine.reconstruct(noisy, sigma)) * noisy.mean(dim=(1, 2, 3), keepdim=True)

    points = images[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: sure_score(curved, y, SIGMA), (points,))


def test_the_probe_is_fixed_signs() -> None:
    signs = probe((3, 32, 32))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.1
    assert torch.equal(signs, probe((3, 32, 32)))
    before = torch.get_rng_state()
    probe((1, 4, 4))
    assert torch.equal(before, torch.get_rng_state())


def test_what_it_cannot_use_is_refused(images: Tensor, affine: Affine) -> None:
    with pytest.raises(InputError, match="reconstruct"):
        SmoothedDetector(lambda y: y.flatten(1).sum(1), SIGMA, "sure")
    with pytest.raises(InputError, match="purifier as the detector"):
        SmoothedDetector(affine, SIGMA, "sure", purifier=affine)
    with pytest.raises(InputError, match="needs one"):
        SmoothedDetector(affine, None, "sure")
    for wrong in ({"sigma": 0.0}, {"sigma": SIGMA, "step": 0.0}):
        with pytest.raises(InputError, match="above 0"):
            sure_score(affine.reconstruct, images, **wrong)
