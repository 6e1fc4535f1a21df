"""The Ops contract in PyTorch. See :mod:`agnostic.ops` for the meaning of each operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from agnostic.ops import Axis

Tensor = torch.Tensor

# Elements that are summed one after the other; a few thousand lose nothing.
_ROW = 4096


def _axis(axis: Axis) -> Any:
    return tuple(axis) if isinstance(axis, Sequence) else axis


def _like(value: Tensor | float, x: Tensor) -> Tensor:
    """A number as a tensor beside another; filled there, since a copy from main memory would wait for the device."""
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=x.dtype, device=x.device)


def _norm(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(x, dim=_axis(axis), keepdim=keepdims)
    return found


class TorchOps:
    """See :class:`agnostic.ops.Ops`. New tensors are made on ``device``."""

    name = "torch"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def asarray(self, value: Any, dtype: str | None = None) -> Tensor:
        x: Tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value, order="C"))
        return x.to(self.device, None if dtype is None else getattr(torch, dtype))

    def numpy(self, x: Tensor) -> np.ndarray[Any, Any]:
        x = x.detach()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True).copy()

    def dtype(self, x: Tensor) -> str:
        return str(x.dtype).removeprefix("torch.")

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return x.to(getattr(torch, dtype))

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(tuple(shape))

    def transpose(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.permute(tuple(axes))

    def concatenate(self, arrays: Sequence[Tensor], axis: int = 0) -> Tensor:
        return torch.cat(list(arrays), axis)

    def stack(self, arrays: Sequence[Tensor], axis: int = 0) -> Tensor:
        return torch.stack(list(arrays), axis)

    def expand(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.expand(tuple(shape))

    def repeat(self, x: Tensor, repeats: int, axis: int) -> Tensor:
        return x.repeat_interleave(repeats, axis)

    def flip(self, x: Tensor, axis: Axis) -> Tensor:
        dims = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        return x.flip(tuple(dims))

    def pad(self, x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
        return F.pad(x, [side for pair in reversed(widths) for side in pair], value=value)

    def take(self, x: Tensor, indices: Tensor, axis: int) -> Tensor:
        axis %= x.ndim
        flat = x.index_select(axis, indices.reshape(-1))
        return flat.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])

    def take_along_axis(self, x: Tensor, indices: Tensor, axis: int) -> Tensor:
        return torch.take_along_dim(x, indices, axis)

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition, a, b)

    def abs(self, x: Tensor) -> Tensor:
        return x.abs()

    def sign(self, x: Tensor) -> Tensor:
        return x.sign()

    def sqrt(self, x: Tensor) -> Tensor:
        return x.sqrt()

    def square(self, x: Tensor) -> Tensor:
        return x.square()

    def exp(self, x: Tensor) -> Tensor:
        return x.exp()

    def log(self, x: Tensor) -> Tensor:
        return x.log()

    def sin(self, x: Tensor) -> Tensor:
        return x.sin()

    def cos(self, x: Tensor) -> Tensor:
        return x.cos()

    def tanh(self, x: Tensor) -> Tensor:
        return x.tanh()

    def sigmoid(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def floor(self, x: Tensor) -> Tensor:
        return x.floor()

    def maximum(self, a: Tensor, b: Tensor | float) -> Tensor:
        return torch.maximum(a, _like(b, a))

    def minimum(self, a: Tensor, b: Tensor | float) -> Tensor:
        return torch.minimum(a, _like(b, a))

    def clip(self, x: Tensor, low: float, high: float) -> Tensor:
        return x.clip(low, high)

    def isfinite(self, x: Tensor) -> Tensor:
        return x.isfinite()

    def sum(self, x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return x.sum(_axis(axis), keepdim=keepdims)

    def mean(self, x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return x.mean(_axis(axis), keepdim=keepdims)

    def max(self, x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return x.amax(() if axis is None else _axis(axis), keepdim=keepdims)

    def min(self, x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return x.amin(() if axis is None else _axis(axis), keepdim=keepdims)

    def lerp(self, a: Tensor, b: Tensor, weight: float) -> Tensor:
        return torch.lerp(a, b, weight)

    def norm(self, x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
        whole = axis is None and not keepdims
        if not (whole and x.device.type == "cpu" and x.is_contiguous() and x.numel() > _ROW):
            return _norm(x, axis, keepdims)
        # PyTorch adds one square after the other there: of 25 million it loses 3 digits, of rows none.
        flat, rows = x.reshape(-1), x.numel() // _ROW
        of_rows = _norm(flat[: rows * _ROW].view(rows, _ROW), 1)
        return _norm(torch.cat([of_rows, flat[rows * _ROW :]]))

    def known(self, x: Tensor) -> float | None:
        # A subclass may be a trace, or hold its values elsewhere; so may what torch.func wraps.
        plain = type(x) is Tensor and not torch._C._functorch.is_functorch_wrapped_tensor(x)
        at_hand = plain and x.device.type == "cpu" and not torch.compiler.is_compiling() and not torch._C._is_tracing()
        return x.detach().item() if at_hand else None

    def addmm(self, x: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float) -> Tensor:
        return torch.addmm(x, a, b, beta=beta, alpha=alpha)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    def einsum(self, equation: str, *operands: Tensor) -> Tensor:
        return torch.einsum(equation, *operands)

    def irfft2(self, real: Tensor, imaginary: Tensor, shape: tuple[int, int]) -> Tensor:
        found: Tensor = torch.fft.irfft2(torch.complex(real, imaginary), s=shape, norm="ortho")
        return found

    def warp(self, images: Tensor, matrices: Tensor, shape: tuple[int, int]) -> Tensor:
        height, width = images.shape[1:3]
        # grid_sample wants (x, y) in [-1, 1]; with align_corners that is 2 * pixel / (size - 1) - 1, and an image of
        # one pixel has a single place to read.
        rows = torch.arange(shape[0], dtype=images.dtype, device=images.device)[:, None, None]
        columns = torch.arange(shape[1], dtype=images.dtype, device=images.device)[:, None]
        m = matrices.to(images.dtype)[:, None, None]
        points = m[..., 0] * rows + m[..., 1] * columns + m[..., 2]
        across, down = (points[..., i] * (2 / max(size - 1, 1)) - 1 for i, size in ((1, width), (0, height)))
        grid = torch.stack((across, down), -1)
        warped = F.grid_sample(images.permute(0, 3, 1, 2), grid, padding_mode="border", align_corners=True)
        return warped.permute(0, 2, 3, 1)

    def stop_gradient(self, x: Tensor) -> Tensor:
        return x.detach()


def ops_for(arrays: Sequence[Any] = ()) -> TorchOps:
    """See :meth:`agnostic.contracts.ops.Operations.ops_for`."""
    return TorchOps(next((x.device for x in arrays if isinstance(x, Tensor)), "cpu"))


def engine() -> str:
    """PyTorch computes by itself."""
    return "torch"
