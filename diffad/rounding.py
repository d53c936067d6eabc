"""Bounds on float64 rounding, for scores whose certificate is the score itself.

A deterministic certificate `[score - L r, score + L r]` with L = 1 is attained, so there is no slack in which
the rounding of the score could hide. The functions here turn a computed distance into an interval that holds
the distance
of real arithmetic. Notation of Higham, Accuracy and Stability of Numerical Algorithms (2nd ed., 2002),
chapter 3: a sum or inner product of n terms, in any order, with or without fused operations, has relative
error at most `gamma(n) = n u / (1 - n u)` against the sum of absolute values, with u = 2^-53.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.types import FloatArray

UNIT_ROUNDOFF = 2.0**-53


def gamma(terms: int) -> float:
    """Return the relative error bound of a float64 sum of `terms` terms."""
    return terms * UNIT_ROUNDOFF / (1.0 - terms * UNIT_ROUNDOFF)


def enclose(
    distances: FloatArray,
    terms: int,
    *,
    square_below: FloatArray | float = 0.0,
    square_above: FloatArray | float = 0.0,
    absolute: FloatArray | float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Return float64 (lower, upper) that enclose the distances of real arithmetic.

    `distances` are Euclidean norms of differences computed in float64. Every term is a difference, (1 + u),
    squared, (1 + u)^3, summed, (1 + gamma(terms - 1)); all are positive, so the norm has a relative error
    below gamma(terms + 3). The bound used is four times that, which also pays for the few operations of this
    function.

    Args:
        distances: computed distances, any shape, not negative.
        terms: number of coordinates of the vectors.
        square_below: how far the squared ideal distance may lie below the square of `distances`, beyond
            rounding.
        square_above: how far it may lie above; both come from a search (`diffad.neighbours`).
        absolute: error already made in the coordinates, as an L2 norm.
    """
    relative = 4.0 * gamma(terms + 3)
    below = np.maximum(0.0, distances * (1.0 - relative) ** 2 * distances - square_below)
    above = distances * (1.0 + relative) ** 2 * distances + square_above
    spread = absolute * (1.0 + relative)
    lower = np.maximum(0.0, np.sqrt(below) * (1.0 - relative) - spread)
    upper = np.sqrt(above) * (1.0 + relative) + spread
    return lower, upper


def contraction(basis: Float[Tensor, "rows dims"]) -> Float[Tensor, "rows dims"]:
    """Shrink a basis that is orthonormal up to rounding so that its spectral norm is at most 1, exactly.

    ||V||^2 = ||V V^T|| <= 1 + ||V V^T - I||_F, the computed Frobenius norm is off by at most
    gamma(dims) ||V||_F^2 + rounding, and the division adds one rounding an entry; the shrinkage is of order
    1e-14. Distances after `V x` are then 1-Lipschitz in x with no rounding left to account for in the
    constant.
    """
    rows, dims = basis.shape
    defect = float(torch.linalg.matrix_norm(basis @ basis.T - torch.eye(rows).to(basis)))
    allowance = 4.0 * gamma(dims + rows + 4) * rows
    return basis / (1.0 + defect + allowance)


def spectral_bound(matrix: Float[Tensor, "rows dims"]) -> float:
    """Return an upper bound of the spectral norm, within about 1e-10 if the rows are orthonormal up to a factor.

    ||W||^2 = ||W W^T||, and the norm of a symmetric matrix is at most its largest absolute row sum. An entry of the
    computed W W^T is off by at most gamma(dims) |w_i| |w_j|, so a row sum by at most gamma(dims) rows max |w|^2, and
    its summation adds a relative gamma(rows); four times that pays for the few operations of this function.
    """
    rows, dims = matrix.shape
    matrix = matrix.double()
    largest = float((matrix @ matrix.T).abs().sum(1).max())
    longest = float(matrix.square().sum(1).max())
    relative = 4.0 * gamma(dims + rows + 4)
    return float(np.sqrt((largest + rows * relative * longest) * (1.0 + relative)))


def contraction_bound(matrix: Float[Tensor, "rows dims"]) -> float:
    """Return an upper bound of the spectral norm that is at most 1 for whatever `contraction` has returned.

    ||W||^2 = ||G|| <= m + ||G - m I||_F for G = W W^T and any m, here the mean of its diagonal. The computed G is off
    by at most gamma(dims) ||W||_F^2 in norm, and the norms by a relative gamma of the squares that they add.

    With d and a for the defect and the allowance of `contraction`, its G lies within d of I / (1 + d + a)^2, so that
    m + ||G - m I||_F is at most 1 - 2 (d + a) + sqrt(2) d and rounding: of G here and there, and of the entries, less
    than 4 gamma(dims + 4) rows in all. a = 4 gamma(dims + rows + 4) rows is subtracted twice and pays for it.
    """
    rows, dims = matrix.shape
    if rows == 0:
        return 0.0
    matrix = matrix.double()
    gram = matrix @ matrix.T
    middle = float(gram.diagonal().mean())
    apart = float(torch.linalg.matrix_norm(gram - middle * torch.eye(rows).to(gram)))
    squares = float(matrix.square().sum())
    apart *= 1.0 + gamma(rows * rows + 4)
    squares *= 1.0 + gamma(rows * dims + 4)
    total = (middle + apart + gamma(dims) * squares) * (1.0 + 8.0 * UNIT_ROUNDOFF)
    return float(np.nextafter(np.sqrt(total), np.inf))


def norm_fault(matrices: Mapping[str, Tensor], most: float) -> str:
    """Return which matrix is not proven to have a spectral norm of at most `most`, and its bound; "" if all are."""
    for name, matrix in matrices.items():
        if matrix.ndim != 2:
            return f"{name} has the shape {tuple(matrix.shape)}, need a matrix"
        bound = contraction_bound(matrix)
        if not bound <= most:  # nor is NaN
            return f"{name} has a spectral norm of up to {bound:.6g}, need at most {most:g}"
    return ""
