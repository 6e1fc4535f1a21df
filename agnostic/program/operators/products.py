"""Products of matrices."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.shapes import broadcast
from agnostic.program.vocabulary import Shape, operator, size


def _linear_shape(x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    return (*x[:-1], *weight[:-1])


def _linear_flops(x: Shape, weight: Shape, bias: Shape | None = None, *, out: Shape) -> int:
    return 2 * size(out) * weight[-1]


@operator(shape=_linear_shape, flops=_linear_flops)
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Y = x W^T + b over the last axis.

    Args:
        x: (..., I).
        weight: (O, I); (I,) gives no axis O.
        bias: (O,).
    """
    # One product of two matrices: NumPy multiplies stacks of matrices one by one.
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    result: Array = (rows @ weight.T).reshape(x.shape[:-1] + weight.shape[:-1])
    return result if bias is None else result + bias


def _matmul_shape(a: Shape, b: Shape) -> Shape:
    rows = a[-2:-1] if len(a) > 1 else ()
    columns = b[-1:] if len(b) > 1 else ()
    return (*broadcast(a[:-2], b[:-2]), *rows, *columns)


def _matmul_flops(a: Shape, b: Shape, *, out: Shape) -> int:
    return 2 * size(out) * a[-1]


@operator(shape=_matmul_shape, flops=_matmul_flops)
def matmul(a: Array, b: Array) -> Array:
    """C[..., i, j] = sum over k of A[..., i, k] B[..., k, j]; leading axes broadcast, vectors as in NumPy."""
    result: Array = a @ b
    return result


def _sizes(operands: Any, equation: str) -> dict[str, int]:
    terms = equation.partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, operands, strict=True):
        for letter, n in zip(term, shape, strict=True):
            sizes[letter] = n if sizes.get(letter, 1) == 1 else sizes[letter]  # one may stand for many
    return sizes


def explicit(equation: str, ranks: Sequence[int]) -> str:
    """An equation of einsum with an arrow and without dots, of which frameworks let both be left out.

    Args:
        equation: as a framework takes it.
        ranks: the number of axes of each operand.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    free = iter(letter for letter in reversed(string.ascii_letters) if letter not in equation)
    widths = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    dotted = [width for term, width in zip(terms, widths, strict=True) if "..." in term]
    dots = "".join(next(free) for _ in range(max(dotted, default=0)))
    terms = [t.replace("...", dots[len(dots) - w :] if w else "") for t, w in zip(terms, widths, strict=True)]
    if not arrow:
        letters = "".join(terms)
        right = dots + "".join(sorted(x for x in set(letters) - set(dots) if letters.count(x) == 1))
    return ",".join(terms) + "->" + right.replace("...", dots)


def _einsum_shape(operands: list[Shape], *, equation: str) -> Shape:
    sizes = _sizes(operands, equation)
    return tuple(sizes[letter] for letter in equation.partition("->")[2])


def _einsum_flops(operands: list[Shape], *, out: Shape, equation: str) -> int:
    return 2 * size(tuple(_sizes(operands, equation).values())) if len(operands) > 1 else 0


@operator(shape=_einsum_shape, flops=_einsum_flops)
def einsum(operands: tuple[Array, ...], *, equation: str) -> Array:
    """Einstein's sum: letters that the result does not have are summed.

    Args:
        operands: the arrays.
        equation: with an arrow, one letter per axis, no dots, such as ``"nqhd,nkhd->nhqk"``.
    """
    result: Array = np.einsum(equation, *operands, optimize=True)
    return result


def _outer_shape(a: Shape, b: Shape) -> Shape:
    return (*a, *b)


def _outer_flops(a: Shape, b: Shape, *, out: Shape) -> int:
    return size(out)


@operator(shape=_outer_shape, flops=_outer_flops)
def outer(a: Array, b: Array) -> Array:
    """C[i, j] = a[i] b[j]."""
    result: Array = np.multiply.outer(a, b)
    return result
