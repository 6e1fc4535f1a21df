"""What arithmetic alone does to numbers: the unit in which differences are measured.

A layer's noise floor is the root mean square of the difference between its float32 output and the float64 output of the
same weights for the same inputs. Where that is measured as less than any float32 algorithm could promise, a bound takes
its place:

- a result is rounded: half a unit roundoff u of the result. A number of random digits is off by u/2 in the mean square
  (uniform rounding errors have a standard deviation of 1/sqrt(12) of a spacing, which is u to 2u).
- the input is rounded: what the layer does to a relative change of its input by u, of random sign. No backward stable
  algorithm promises more (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 1.5), and where a
  layer subtracts what is almost equal, as a batch norm does, another order of operations differs by just that.
- a number below the smallest normal one may be flushed to zero.

Where a framework has no exact float64 (Keras: see the field guide), the float32 layer's own answer to such changes of
its input is the estimate: each rounding in it falls another way (Monte Carlo arithmetic: Parker, "Monte Carlo
Arithmetic: exploiting randomness in floating-point arithmetic", UCLA CSD-970002, 1997).
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}

THRESHOLD = 10.0
"""How many noise floors a healthy layer never reaches; see docs/traces.md for the measurement behind it."""

MULTIPLIED = 2.0**-11
"""Unit roundoff of the factors of float32 products on accelerators, which drop digits by default (TF32 has 11 bits)."""

_SMALLEST = {"float64": 2.0**-1022, "float32": 2.0**-126, "float16": 2.0**-24, "bfloat16": 2.0**-126}


def unit(dtype: str) -> float:
    """The unit roundoff of a type; an integer's numbers are taken as float32 would hold them."""
    return UNIT_ROUNDOFF.get(dtype, UNIT_ROUNDOFF["float32"])


def rms(x: Array) -> float:
    """Root mean square of the finite elements; 0 for none."""
    if not x.size:
        return 0.0
    flat = _flat(x)
    square = float(np.dot(flat, flat)) if flat.dtype.kind == "f" and flat.dtype.itemsize > 2 else np.inf
    if square == 0.0 and not flat.any():
        return 0.0
    if not 1e-30 < square < 1e36:  # overflow, underflow, NaN, half precision, integers
        exact = flat.astype(np.float64)
        exact = exact[np.isfinite(exact)]
        square = float(np.dot(exact, exact))
    return float(np.sqrt(square / x.size))


def _flat(x: Array) -> Array:
    # An array in another order of memory is summed in that order, without a copy.
    order = sorted(range(x.ndim), key=lambda i: -abs(x.strides[i]))
    moved = x.transpose(order)
    return moved.reshape(-1) if moved.flags.c_contiguous else np.ascontiguousarray(x).reshape(-1)


def _in_line(a: Array, b: Array) -> tuple[Array, Array] | None:
    """Both arrays in the order of memory that they have in common, without a copy; None where there is none."""
    order = sorted(range(a.ndim), key=lambda i: -abs(a.strides[i]))
    x, y = a.transpose(order), b.transpose(order)
    if not (a.shape == b.shape and x.flags.c_contiguous and y.flags.c_contiguous):
        return None
    return x.reshape(-1), y.reshape(-1)


BLOCK = 1 << 13
"""How many numbers are subtracted at once: they stay in the cache, and BLAS sums so few in one thread."""


def _square(a: Array, b: Array, dtype: np.dtype[Any]) -> float:
    """The sum of the squares of a - b; 0 for equal arrays alone."""
    total, delta = 0.0, np.empty(min(BLOCK, a.size), dtype)
    for start in range(0, a.size, BLOCK):
        x = a[start : start + BLOCK]
        part = np.subtract(x, b[start : start + BLOCK], out=delta[: x.size], dtype=dtype)
        square = float(np.dot(part, part))
        # Where a difference's square underflows, it is no zero.
        total += square if square or not part.any() else float(np.finfo(dtype).tiny)
    return total


def difference(a: Array, b: Array) -> float:
    """Root mean square of a - b, of one shape.

    Equal infinities and NaN in the same places are no difference; one that is not matched is infinite.
    """
    if not a.size:
        return 0.0
    if a.dtype.kind in "iub" and b.dtype.kind in "iub":
        return rms(a.astype(np.float64) - b.astype(np.float64))
    wide = np.result_type(a.dtype, b.dtype, np.float32)
    with np.errstate(all="ignore"):
        flat = _in_line(a, b)
        if flat is None:
            delta = _flat(np.subtract(a, b, dtype=wide))
            square = float(np.dot(delta, delta))
        else:
            square = _square(*flat, wide)
            if square == 0.0 or 1e-30 < square < 1e36:
                return float(np.sqrt(square / a.size))
            delta = np.subtract(a, b, dtype=wide)
    if square > 1e36 or square != square:
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        odd = ~(np.isfinite(x) & np.isfinite(y))
        if odd.any():
            if not (np.isnan(x[odd]) == np.isnan(y[odd])).all():
                return float("inf")
            both = odd & ~np.isnan(x)
            if not (x[both] == y[both]).all():
                return float("inf")
            x, y = np.where(odd, 0.0, x), np.where(odd, 0.0, y)
        delta = x - y
    return rms(delta)


def least(scale: float, dtype: str) -> float:
    """The smallest floor of an array whose root mean square is ``scale``: one rounding; positive."""
    return max(unit(dtype) * scale / 2, _SMALLEST.get(dtype, _SMALLEST["float32"]))


def repeated(scale: float, dtype: str, length: float) -> float:
    """How far two runs of one operation on the same numbers may be apart without its drawing any, in the mean square.

    A sum in another order, by another kernel or by threads that take turns errs by sqrt(n) u for independent errors
    (Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41(5), 2019), and
    rounded factors by their own roundoff; both are of the size of the sum. What a layer draws is another matter: a
    dropout of rate p changes its output by sqrt(2 p) of its size.

    Args:
        scale: root mean square of the result, or of what is summed up to it, where that cancels.
        dtype: the coarsest type that takes part.
        length: n, how many numbers a sum has.
    """
    u = unit(dtype)
    factors = MULTIPLIED if dtype == "float32" else u
    return max(THRESHOLD * (factors + u * float(np.sqrt(length))) * scale, _SMALLEST.get(dtype, _SMALLEST["float32"]))


def nudged(x: Array, size: float, seed: int = 0) -> Array:
    """An array with each element changed by the factor 1 + size or 1 - size, at random; integers as they are."""
    if x.dtype.kind != "f":
        return x
    signs = np.random.default_rng(seed).integers(0, 2, x.shape, np.int8)
    factor = np.where(signs, x.dtype.type(1 + size), x.dtype.type(1 - size)) if x.dtype.itemsize > 4 else None
    if factor is not None:
        return np.asarray(x * factor)
    # 1 + u rounds to 1 in the type itself: the neighbour in that direction is as far as u to 2u.
    return np.asarray(np.where(signs, np.nextafter(x, x.dtype.type(np.inf)), np.nextafter(x, x.dtype.type(-np.inf))))


def nudge(x: Array, dtype: str, seed: int = 0) -> Array:
    """Each element changed by its last bit, up or down, at random; of bfloat16 too, which comes as float32."""
    if x.dtype.kind == "f" and dtype in ("float16", "bfloat16") and x.dtype.itemsize > 2:
        return nudged(x.astype(np.float64), 2 * unit(dtype), seed).astype(x.dtype)
    return nudged(x, unit(dtype), seed)
