"""Complex numbers and Fourier transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from agnostic.program.nodes import Array
from agnostic.program.vocabulary import Shape, operator, size

Norm = Literal["backward", "ortho", "forward"]


@operator(shape=lambda x: x[:-1])
def as_complex(x: Array) -> Array:
    """Pairs (real, imaginary) along the last axis as complex numbers."""
    result: Array = x[..., 0] + 1j * x[..., 1]
    return result


@operator(shape=lambda x: (*x, 2))
def as_real(x: Array) -> Array:
    """Complex numbers as pairs (real, imaginary) along a new last axis."""
    return np.stack([x.real, x.imag], axis=-1)


def _fourier_shape(
    x: Shape, *, axes: Sequence[int], inverse: bool = False, half: bool = False, length: int | None = None,
    norm: str = "backward",
) -> Shape:  # fmt: skip
    found = list(x)
    if half:
        found[axes[-1]] = (length or 2 * (x[axes[-1]] - 1)) if inverse else x[axes[-1]] // 2 + 1
    return tuple(found)


def _fourier_flops(x: Shape, *, out: Shape, axes: Sequence[int], **attributes: Any) -> int:
    # Source: the split-radix bound that FFTW's benchmarks use, 5 n log2 n.
    n = size(tuple(x[axis] for axis in axes))
    return int(5 * size(x) * np.log2(max(n, 2)))


@operator(shape=_fourier_shape, flops=_fourier_flops)
def fourier(
    x: Array, *, axes: Sequence[int], inverse: bool = False, half: bool = False, length: int | None = None,
    norm: Norm = "backward",
) -> Array:  # fmt: skip
    """The discrete Fourier transform over axes, as ``numpy.fft`` defines it.

    Args:
        x: real or complex.
        axes: which.
        inverse: the inverse transform.
        half: real numbers on the other side: the last axis has only the non-negative frequencies.
        length: of the last axis of a real inverse.
        norm: ``"backward"``, ``"ortho"`` or ``"forward"``.
    """
    along = tuple(axes)
    if not half:
        return np.asarray((np.fft.ifftn if inverse else np.fft.fftn)(x, axes=along, norm=norm))
    if not inverse:
        return np.asarray(np.fft.rfftn(x, axes=along, norm=norm))
    sizes = [x.shape[axis] for axis in along]
    sizes[-1] = length or 2 * (sizes[-1] - 1)
    return np.asarray(np.fft.irfftn(x, s=sizes, axes=along, norm=norm))
