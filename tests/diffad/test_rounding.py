from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from diffad.rounding import contraction, contraction_bound, enclose, gamma, norm_fault, spectral_bound


def exact_square(left: torch.Tensor, right: torch.Tensor) -> Fraction:
    return sum(
        ((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(left.tolist(), right.tolist(), strict=True)),
        Fraction(0),
    )


def test_gamma_grows_with_the_terms() -> None:
    assert gamma(1) == pytest.approx(2.0**-53)
    assert gamma(1000) > 1000 * 2.0**-53


@pytest.mark.parametrize("dims", [1, 10, 500])
@pytest.mark.parametrize("scale", [1e-6, 1.0])
def test_enclosure_holds_the_distance_of_rational_arithmetic(dims: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(dims)
    left = torch.rand(20, dims, generator=generator)
    right = left + scale * torch.rand(20, dims, generator=generator)
    distances = torch.linalg.vector_norm(left.double() - right.double(), dim=1).numpy()
    lower, upper = enclose(distances, dims)
    for i in range(20):
        assert Fraction(lower[i]) ** 2 <= exact_square(left[i], right[i]) <= Fraction(upper[i]) ** 2
    assert (upper - lower <= 1e-12 * distances * max(1, dims / 100)).all()


def test_slack_widens_on_the_side_named() -> None:
    distances = np.array([0.0, 1.0])
    lower, upper = enclose(distances, 4, square_below=0.19)
    assert lower == pytest.approx([0.0, 0.9])
    assert upper == pytest.approx([0.0, 1.0])
    lower, upper = enclose(distances, 4, square_above=0.21)
    assert lower == pytest.approx([0.0, 1.0])
    assert upper == pytest.approx([0.21**0.5, 1.1])
    lower, upper = enclose(distances, 4, absolute=0.1)
    assert lower == pytest.approx([0.0, 0.9])
    assert upper == pytest.approx([0.1, 1.1])


def test_contraction_makes_the_norm_at_most_one() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(30, 12, generator=generator, dtype=torch.float64)).Q.T * (1 + 1e-9)
    shrunk = contraction(basis)
    # |V|^2 <= |V V^T|_inf, in rational arithmetic
    rows = [[Fraction(value) for value in row] for row in shrunk.tolist()]
    gram = [[sum((a * b for a, b in zip(r, s, strict=True)), Fraction(0)) for s in rows] for r in rows]
    off = max(sum((abs(v) for v in row), Fraction(0)) for row in gram)
    assert off <= 1 + Fraction(1, 10**9)
    assert np.linalg.norm(shrunk.numpy(), 2) < 1.0
    torch.testing.assert_close(shrunk, basis, rtol=1e-7, atol=0)


@pytest.mark.parametrize(("rows", "dims"), [(1, 1), (3, 40), (20, 5), (30, 30)])
def test_the_spectral_bound_is_above_the_norm(rows: int, dims: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    matrix = torch.randn(rows, dims, generator=generator, dtype=torch.float64)
    norm = float(torch.linalg.matrix_norm(matrix, 2))
    assert norm <= spectral_bound(matrix) <= rows**0.5 * norm * (1 + 1e-12)


def test_the_spectral_bound_is_tight_for_orthonormal_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(50, 20, generator=generator, dtype=torch.float64)).Q.T
    assert spectral_bound(3.0 * basis) == pytest.approx(3.0, abs=1e-11)
    assert spectral_bound(contraction(basis)) < 1.0
    assert spectral_bound(torch.zeros(2, 3)) == 0.0


@pytest.mark.parametrize(("rows", "dims"), [(1, 1), (1, 784), (3, 40), (20, 5), (30, 30), (120, 130)])
def test_the_bound_for_contractions_is_above_the_norm_and_knows_them(rows: int, dims: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    matrix = torch.randn(rows, dims, generator=generator, dtype=torch.float64)
    assert float(torch.linalg.matrix_norm(matrix, 2)) <= contraction_bound(matrix) * (1 + 1e-13)
    shrunk = contraction(torch.linalg.qr(matrix.T).Q.T)
    assert 1 - 1e-9 < contraction_bound(shrunk) <= 1.0
    assert contraction_bound(1.000001 * shrunk) > 1.0
    assert contraction_bound(contraction(matrix)) <= 1.0  # nothing like orthonormal


def test_the_bound_for_contractions_allows_identities_and_their_last_bits() -> None:
    for rows in range(1, 40):
        for perturbed in (0.0, 2.0**-52):
            basis = torch.eye(rows, 2 * rows, dtype=torch.float64) * (1 + perturbed)
            assert contraction_bound(contraction(basis)) <= 1.0
    assert contraction_bound(torch.zeros(0, 3)) == 0.0


def test_a_matrix_that_is_too_long_or_none_is_named_with_its_norm() -> None:
    basis = torch.eye(3, 5, dtype=torch.float64)
    assert norm_fault({"first": contraction(basis), "second": contraction(basis)}, 1.0) == ""
    assert norm_fault({"first": contraction(basis), "second": 5 * basis}, 1.0) == (
        "second has a spectral norm of up to 5, need at most 1"
    )
    assert norm_fault({"one": torch.full((2, 2), torch.nan)}, 1.0).startswith(
        "one has a spectral norm of up to nan"
    )
    assert norm_fault({"one": basis[0]}, 1.0) == "one has the shape (5,), need a matrix"
