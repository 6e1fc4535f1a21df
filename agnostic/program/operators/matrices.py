"""Inverses, determinants and decompositions of the matrices in the last two axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator, size


def _same(x: Shape, **attributes: Any) -> Shape:
    return x


def _cubed(*shapes: Any, out: Any, **attributes: Any) -> int:
    # Source: Golub, Van Loan, "Matrix Computations", section 3.2: 2/3 n^3 for the factors, 2 n^2 for each column.
    matrices = shapes[0]
    return size(matrices) * int(2 * matrices[-1] // 3 + 2)


@operator(shape=_same, flops=_cubed)
def inverse(x: Array) -> Array:
    """The matrix y with ``x y = 1``."""
    return np.asarray(np.linalg.inv(x))


@operator(shape=lambda x: x[:-2], flops=_cubed)
def determinant(x: Array) -> Array:
    """The determinant of each matrix: ``y = prod(eigenvalues of x)``."""
    return np.asarray(np.linalg.det(x))


@operator(shape=_same, flops=_cubed)
def cholesky(x: Array, *, upper: bool = False) -> Array:
    """The triangular L with L L^T = x; with ``upper`` its transpose."""
    found = np.linalg.cholesky(x)
    return np.asarray(np.swapaxes(found, -1, -2) if upper else found)


def _solve_shape(a: Shape, b: Shape) -> Shape:
    if len(b) == 1:
        return a[:-1]
    return (*np.broadcast_shapes(a[:-2], b[:-2]), *b[-2:])


@operator(shape=_solve_shape, flops=_cubed)
def solve(a: Array, b: Array) -> Array:
    """The x with a x = b, columns of b being vectors; b may be one vector."""
    return np.asarray(np.linalg.solve(a, b[:, None])[..., 0] if b.ndim == 1 else np.linalg.solve(a, b))
