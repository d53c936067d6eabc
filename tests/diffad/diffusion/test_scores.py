from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.diffusion.scores import (
    l2_norm,
    mean_filter,
    multiscale_error,
    pair_lipschitz,
    patch_norms,
    patch_weights,
    root_max_lipschitz,
    safe_root,
    scales_for,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_multiscale_error_by_hand() -> None:
    """One bright pixel of 8: at scale l its l x l block has mean 8 / l^2; bilinear upsampling by hand."""
    residual = torch.zeros(1, 2, 8, 8)
    residual[0, 0, 0, 0] = 8.0
    fine, coarse = 64.0 / 2, (8.0 / 64) ** 2 / 2
    only = multiscale_error(residual, (1,), 1)
    assert only.shape == (1, 8, 8)
    assert only[0, 0, 0] == fine
    assert only.sum() == fine
    assert torch.equal(multiscale_error(residual, (8,), 1), torch.full((1, 8, 8), coarse))
    # scale 2: a 4 x 4 map with (8 / 4)^2 / 2 = 2 in its corner; pixel centres at (i + 0.5) / 2 - 0.5
    weights = torch.tensor([1.0, 0.75, 0.25, 0, 0, 0, 0, 0])
    torch.testing.assert_close(multiscale_error(residual, (2,), 1)[0], 2.0 * weights[:, None] * weights)
    both = multiscale_error(residual, (1, 8), 1)
    torch.testing.assert_close(both[0, 0, 0], torch.tensor((fine + coarse) / 2))


def test_mean_filter_averages_the_pixels_that_exist() -> None:
    values = torch.arange(16.0).reshape(1, 1, 4, 4)
    filtered = mean_filter(values, 3)[0, 0]
    assert filtered[0, 0] == (0 + 1 + 4 + 5) / 4
    assert filtered[0, 1] == (0 + 1 + 2 + 4 + 5 + 6) / 6
    assert filtered[1, 1] == values[0, 0, :3, :3].mean()
    assert torch.equal(mean_filter(torch.ones(1, 1, 4, 4), 3), torch.ones(1, 1, 4, 4))
    assert torch.equal(mean_filter(values, 1), values)
    with pytest.raises(InputError, match="odd"):
        mean_filter(values, 4)


def test_scales_have_to_divide_the_image() -> None:
    with pytest.raises(InputError, match="8 does not divide the image size 28 x 28"):
        multiscale_error(noise(1, 1, 28, 28))
    assert scales_for((1, 28, 28)) == (1, 2, 4)
    assert scales_for((3, 64, 64)) == (1, 2, 4, 8)
    assert scales_for((1, 7, 8)) == (1,)


def test_patch_norms_by_hand() -> None:
    residual = noise(2, 3, 5, 6)
    norms = patch_norms(residual, 2)
    assert norms.shape == (2, 4, 5)
    torch.testing.assert_close(norms[1, 2, 3], residual[1, :, 2:4, 3:5].norm())
    torch.testing.assert_close(patch_norms(residual[..., :5], 5)[:, 0, 0], l2_norm(residual[..., :5]))
    with pytest.raises(InputError, match="patch_size: got 6"):
        patch_norms(residual, 6)


def test_patch_weights_by_hand() -> None:
    """Windows of 2 x 2 in a map whose last column is nine times as large: means 1, 1 and (1 + 9) / 2 = 5."""
    error = torch.ones(3, 4)
    error[:, -1] = 9.0
    weights = patch_weights(error, 2)
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 0.2**0.5]).expand(2, 3))
    assert torch.equal(patch_weights(torch.zeros(3, 3), 1), torch.ones(3, 3))
    many = patch_weights(noise(32, 32).square(), 5)
    assert many.max() == 1.0  # above 1 the Lipschitz constant would not hold
    assert many.min() > 0.0


def test_norms_have_a_gradient_at_zero() -> None:
    residual = torch.zeros(1, 1, 8, 8, requires_grad=True)
    for score in (
        l2_norm(residual),
        patch_norms(residual, 3).amax(),
        safe_root(multiscale_error(residual)).amax(),
    ):
        (gradient,) = torch.autograd.grad(score.sum(), residual)
        assert bool(torch.isfinite(gradient).all())


def operator_norm(
    shape: tuple[int, int, int], filter_size: int, pixel: tuple[int, int], steps: int = 60
) -> float:
    """Largest |rho| -> sqrt(Err_ms[pixel]) for |rho| = 1: power iteration on its quadratic form."""
    rho = noise(1, *shape).double()
    for _ in range(steps):
        rho = (rho / rho.norm()).requires_grad_()
        error = multiscale_error(rho, filter_size=filter_size)[0, pixel[0], pixel[1]]
        (rho,) = torch.autograd.grad(error, rho)  # = 2 Q rho
    return float((rho.norm() / 2).sqrt())


@pytest.mark.parametrize("filter_size", [1, 3, 9])
@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 24)])
def test_root_max_constant_bounds_every_pixel(shape: tuple[int, int, int], filter_size: int) -> None:
    bound = root_max_lipschitz(shape, filter_size=filter_size)
    assert bound <= shape[0] ** -0.5 + 1e-8
    rng = np.random.default_rng(0)
    pixels = [(0, 0), (0, shape[2] - 1), (shape[1] - 1, 0), *rng.integers(0, 16, size=(5, 2)).tolist()]
    largest = max(operator_norm(shape, filter_size, (row, column)) for row, column in pixels)
    assert largest <= bound * (1 + 1e-9)
    assert largest > 0.6 * bound  # no empty boast: the bound is of the right size


@pytest.mark.parametrize(
    ("filter_size", "measured"), [(1, 0.300), (3, 0.196), (5, 0.143), (9, 0.101), (17, 0.063)]
)
def test_root_max_constant_covers_what_was_measured_at_64_pixels(filter_size: int, measured: float) -> None:
    """Measured by power iteration at 4 pixels of 64 x 64 x 3, at half the size here: the border decides both."""
    assert measured - 5e-4 <= root_max_lipschitz((3, 32, 32), filter_size=filter_size) < 1.5 * measured


@pytest.mark.slow
def test_root_max_constant_at_64_pixels() -> None:
    for filter_size, measured in ((1, 0.300), (3, 0.196), (5, 0.143), (9, 0.101), (17, 0.063)):
        assert measured - 5e-4 <= root_max_lipschitz((3, 64, 64), filter_size=filter_size) < 1.5 * measured


def test_only_the_squared_score_has_no_constant() -> None:
    shape = (1, 8, 8)
    assert pair_lipschitz("paper", shape, (1, 2), 3) is None
    assert pair_lipschitz("l2", shape, (1, 2), 3) == 1.0
    assert pair_lipschitz("patch_max", shape, (1, 2), 3) == 1.0
    assert pair_lipschitz("patch_relative", shape, (1, 2), 3) == 1.0
    assert pair_lipschitz("root_max", shape, (1, 2), 3) == root_max_lipschitz(shape, [1, 2], 3)
