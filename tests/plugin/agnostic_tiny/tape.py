"""Arrays that remember how they were made, and so can be differentiated: NumPy's functions with a rule for each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


class Tensor(np.lib.mixins.NDArrayOperatorsMixin):
    """A NumPy array, ``value``, and the tensors that it was made of, each with the way back to it."""

    def __init__(self, value: Any, sources: Sequence[tuple[Tensor, Callable[[Any], Any]]] = ()) -> None:
        self.value, self.sources = np.asarray(value), sources

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    ndim = property(lambda self: self.value.ndim)

    def __len__(self) -> int:
        return len(self.value)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.value, dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return apply(ufunc, *inputs, **options) if method == "__call__" else NotImplemented

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return apply(function, *args, **options)

    def __getitem__(self, index: Any) -> Tensor:
        return apply(operator.getitem, self, _bare(index))

    def reshape(self, *shape: Any) -> Tensor:
        return apply(np.reshape, self, shape[0] if isinstance(shape[0], tuple) else shape)

    def transpose(self, axes: Any) -> Tensor:
        return apply(np.transpose, self, axes)

    def astype(self, dtype: Any, copy: bool = True) -> Tensor:
        return apply(np.ndarray.astype, self, dtype)


def apply(function: Any, *args: Any, **options: Any) -> Tensor:
    """A function of NumPy on tensors."""
    values = _bare(args)
    out = function(*values, **options)

    def back(place: int) -> Callable[[Any], Any]:
        def pulled(g: Any) -> Any:
            if function not in BACK:
                raise NotImplementedError(f"the tape has no rule for {function.__name__}")
            return _fit(BACK[function](g, out, place, *values, **options), values[place])

        return pulled

    # What is true or false is a constant.
    real = np.asarray(out).dtype.kind != "b"
    return Tensor(out, [(x, back(i)) for i, x in enumerate(args) if isinstance(x, Tensor) and real])


def gradients(outputs: Sequence[Tensor], weights: Sequence[Any], leaves: Sequence[Tensor]) -> list[Any]:
    """The gradient of the weighted sum of outputs for each leaf, as NumPy; None for a leaf that is not connected."""
    order: dict[int, Tensor] = {}
    stack = [(y, False) for y in outputs]
    while stack:  # depth first: a tensor comes after all that it was made of
        y, done = stack.pop()
        if done:
            order.setdefault(id(y), y)
        elif id(y) not in order:
            stack += [(y, True), *((x, False) for x, _ in y.sources)]
    found: dict[int, Any] = {}
    for y, w in zip(outputs, weights, strict=True):
        found[id(y)] = found.get(id(y), 0) + np.broadcast_to(np.asarray(w), y.shape)
    for y in reversed(order.values()):
        for x, back in y.sources if id(y) in found else ():
            found[id(x)] = found.get(id(x), 0) + back(found[id(y)])
    return [found.get(id(x)) for x in leaves]


def _bare(x: Any) -> Any:
    return type(x)(map(_bare, x)) if isinstance(x, list | tuple) else x.value if isinstance(x, Tensor) else x


def _fit(g: Any, like: Any) -> Any:
    """A gradient in the shape of what was broadcast."""
    g = np.sum(g, axis=tuple(range(np.ndim(g) - like.ndim)))
    return np.sum(g, axis=tuple(i for i, n in enumerate(like.shape) if n == 1), keepdims=True).astype(like.dtype)


def _scattered(x: Any, index: Any, g: Any) -> Any:
    out = np.zeros_like(x)
    np.add.at(out, index, g)
    return out


def _spread(g: Any, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The result of a reduction in the shape of its argument."""
    return np.broadcast_to(g if keepdims or axis is None else np.expand_dims(g, axis), x.shape)


def _einsum(g: Any, out: Any, i: int, equation: str, *operands: Any, **_: Any) -> Any:
    names, result = equation.split("->")
    own, others = names.split(","), [k for k in range(len(operands)) if k != i - 1]
    equation = f"{','.join([result, *(own[k] for k in others)])}->{own[i - 1]}"
    return np.einsum(equation, g, *(operands[k] for k in others))


def _along(g: Any, out: Any, i: int, x: Any, indices: Any, axis: int) -> Any:
    places = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    return _scattered(x, (*places[:axis], indices, *places[axis + 1 :]), g)


BACK: Mapping[Any, Callable[..., Any]] = {
    np.add: lambda g, out, i, a, b: g,
    np.subtract: lambda g, out, i, a, b: g if i == 0 else -g,
    np.multiply: lambda g, out, i, a, b: g * (b if i == 0 else a),
    np.divide: lambda g, out, i, a, b: g / b if i == 0 else -g * out / b,
    np.power: lambda g, out, i, a, b: g * b * a ** (b - 1),
    np.negative: lambda g, out, i, a: -g,
    np.sqrt: lambda g, out, i, a: g / (2 * out),
    np.square: lambda g, out, i, a: 2 * g * a,
    np.exp: lambda g, out, i, a: g * out,
    np.log: lambda g, out, i, a: g / a,
    np.sin: lambda g, out, i, a: g * np.cos(a),
    np.tanh: lambda g, out, i, a: g * (1 - out * out),
    np.maximum: lambda g, out, i, a, b: g * (a > b if i == 0 else b > a),
    np.clip: lambda g, out, i, a, low, high: g * ((a >= low) & (a <= high)),
    np.where: lambda g, out, i, c, a, b: g * (c if i == 1 else ~c),
    np.sum: lambda g, out, i, x, **o: _spread(g, x, **o),
    np.mean: lambda g, out, i, x, **o: _spread(g, x, **o) * (out.size / x.size),
    np.matmul: lambda g, out, i, a, b: g @ np.swapaxes(b, -1, -2) if i == 0 else np.swapaxes(a, -1, -2) @ g,
    np.einsum: _einsum,
    np.reshape: lambda g, out, i, x, shape: g.reshape(x.shape),
    np.transpose: lambda g, out, i, x, axes: g.transpose(np.argsort(axes)),
    np.broadcast_to: lambda g, out, i, x, shape: g,
    np.take_along_axis: _along,
    operator.getitem: lambda g, out, i, x, index: _scattered(x, index, g),
    np.ndarray.astype: lambda g, out, i, x, dtype: g,
}
"""(gradient of the result, the result, which argument, *arguments) -> the gradient of that argument."""
