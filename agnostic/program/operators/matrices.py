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


def _solve_shape(a: Shape, b: Shape, **attributes: Any) -> Shape:
    if len(b) == 1:
        return a[:-1]
    return (*np.broadcast_shapes(a[:-2], b[:-2]), *b[-2:])


@operator(shape=_solve_shape, flops=_cubed)
def solve(a: Array, b: Array) -> Array:
    """The x with a x = b, columns of b being vectors; b may be one vector."""
    return np.asarray(np.linalg.solve(a, b[:, None])[..., 0] if b.ndim == 1 else np.linalg.solve(a, b))


@operator(shape=_solve_shape, flops=_cubed)
def triangular_solve(a: Array, b: Array, *, lower: bool = False) -> Array:
    """The x with a x = b, where of a only the upper triangle is read, or with ``lower`` the lower one."""
    found: Array = solve(np.tril(a) if lower else np.triu(a), b)
    return found


@operator(shape=lambda x: (x[:-2], x[:-2]), flops=_cubed)
def log_determinant(x: Array) -> tuple[Array, Array]:
    """The sign of the determinant of each matrix, and the logarithm of its size: ``det = sign exp(log)``."""
    sign, log = np.linalg.slogdet(x)
    return np.asarray(sign), np.asarray(log)


def _qr_shape(x: Shape, *, complete: bool = False) -> tuple[Shape, Shape]:
    *batch, rows, columns = x
    inner = rows if complete else min(rows, columns)
    return (*batch, rows, inner), (*batch, inner, columns)


@operator(shape=_qr_shape, flops=_cubed)
def qr(x: Array, *, complete: bool = False) -> tuple[Array, Array]:
    """Orthonormal columns q and an upper triangle r with ``q r = x``, by Householder reflections as LAPACK has them.

    Args:
        complete: whether q is square.
    """
    q, r = np.linalg.qr(x, mode="complete" if complete else "reduced")
    return np.asarray(q), np.asarray(r)


def _svd_shape(x: Shape, *, full: bool = False) -> tuple[Shape, Shape, Shape]:
    *batch, rows, columns = x
    inner = min(rows, columns)
    return (*batch, rows, rows if full else inner), (*batch, inner), (*batch, columns if full else inner, columns)


@operator(shape=_svd_shape, flops=_cubed)
def svd(x: Array, *, full: bool = False) -> tuple[Array, Array, Array]:
    """Singular values s in falling order, and orthonormal u and v with ``x = u diag(s) v``; signs are LAPACK's.

    Args:
        full: whether u and v are square.
    """
    u, s, v = np.linalg.svd(x, full_matrices=full)
    return np.asarray(u), np.asarray(s), np.asarray(v)


@operator(shape=lambda x: (x[:-1], x), flops=_cubed)
def eigh(x: Array) -> tuple[Array, Array]:
    """Eigenvalues of symmetric matrices in rising order, and eigenvectors as columns; signs are LAPACK's.

    ``x vectors = vectors diag(values)``; only the lower triangle is read.
    """
    values, vectors = np.linalg.eigh(x)
    return np.asarray(values), np.asarray(vectors)


@operator(shape=lambda x: (x, (*x[:-2], min(x[-2:]))), flops=_cubed)
def lu(x: Array) -> tuple[Array, Array]:
    """L below the diagonal, which is 1, and U above it, in one matrix, with ``L U`` = x with rows exchanged.

    The second result has the row that was exchanged with row i, by column i; the first is 0.
    Source: Golub, Van Loan, "Matrix Computations", algorithm 3.4.1, partial pivoting.
    """
    packed = np.array(x, dtype=np.result_type(x, 0.0))
    rows, columns = packed.shape[-2:]
    pivots = np.zeros((*packed.shape[:-2], min(rows, columns)), np.int32)
    for place in np.ndindex(packed.shape[:-2]):
        matrix = packed[place]
        for k in range(min(rows, columns)):
            chosen = k + int(np.argmax(np.abs(matrix[k:, k])))
            pivots[(*place, k)] = chosen
            matrix[[k, chosen]] = matrix[[chosen, k]]
            matrix[k + 1 :, k] /= matrix[k, k] or 1.0
            matrix[k + 1 :, k + 1 :] -= np.outer(matrix[k + 1 :, k], matrix[k, k + 1 :])
    return packed, pivots
