"""Arrays that refuse what no compiler can follow: a function over Ops is tried with them before a model runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from agnostic.errors import InvalidInput
from agnostic.reference.ops import NumpyOps


class Traced:
    """An array that takes part in arithmetic, indexing and the functions of :class:`TracingOps`, and nothing else."""

    __array_ufunc__ = None  # so that NumPy leaves arithmetic with its own arrays to the methods below

    def __init__(self, value: npt.NDArray[Any]) -> None:
        self._value = value

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""
        return tuple(self._value.shape)

    def __getitem__(self, index: Any) -> Traced:
        own = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, np.ndarray | list | Traced) for i in own):
            _refuse("indexes an array with an array", "use ops.take or ops.take_along_axis")
        return Traced(np.asarray(self._value[index]))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(f"uses the attribute {name!r} of an array", f"use ops.{name}, or another function of ops")

    def __setitem__(self, index: Any, value: Any) -> None:
        _refuse("writes into an array", "use ops.where, ops.stack or ops.concatenate")

    def __neg__(self) -> Traced:
        return Traced(-self._value)

    def __bool__(self) -> bool:
        _refuse("branches on the numbers in an array", "use ops.where")

    def __float__(self) -> float:
        _refuse("makes a number of an array", "keep it an array")

    def __iter__(self) -> Any:
        _refuse("loops over an array", "loop over range(array.shape[0])")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        _refuse("gives an array to NumPy", "use the functions of ops")


def _refuse(what: str, instead: str) -> NoReturn:
    raise InvalidInput(f"the function of an objective {what}, which not every framework can compile: {instead}")


def _binary(name: str) -> Callable[[Traced, Any], Traced]:
    def operator(self: Traced, other: Any) -> Traced:
        if isinstance(other, np.ndarray):
            _refuse("combines an array with one of NumPy", "wrap that in ops.asarray")
        return Traced(np.asarray(getattr(self._value, name)(unwrapped(other))))

    return operator


for _name in ("add", "sub", "mul", "truediv", "pow", "matmul", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Traced, f"__{_name}__", _binary(f"__{_name}__"))
for _name in ("radd", "rsub", "rmul", "rtruediv", "rpow"):
    setattr(Traced, f"__{_name}__", _binary(f"__{_name}__"))
Traced.__hash__ = object.__hash__  # type: ignore[method-assign]


def unwrapped(x: Any) -> Any:
    """Plain arrays for traced ones, also in lists and tuples."""
    if isinstance(x, Traced):
        return x._value
    return type(x)(unwrapped(y) for y in x) if isinstance(x, list | tuple) else x


class TracingOps:
    """The operations of :class:`agnostic.ops.Ops` on traced arrays, computed by NumPy."""

    name = "tracing"

    def __getattr__(self, name: str) -> Any:
        operation = getattr(NumpyOps(), name, None)
        if operation is None or name in ("numpy", "known"):
            _refuse(f"uses ops.{name}", "see docs/reference/ops.md for the operations")

        def call(*args: Any, **kwargs: Any) -> Any:
            found = operation(*map(unwrapped, args), **{key: unwrapped(x) for key, x in kwargs.items()})
            return Traced(np.asarray(found)) if isinstance(found, np.ndarray | np.generic) else found

        return call
