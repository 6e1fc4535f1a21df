"""Gradients of many outputs with respect to many inputs, the same in every framework.

The frameworks agree on the numbers but differ in special cases. TensorFlow sums an output that is not a scalar; PyTorch
and jax refuse it. An input that no output depends on gives an error in PyTorch, None in TensorFlow and zeros in jax;
integer inputs give an error, None and an error. Here the caller states each case, and it means the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from agnostic.arrays import describe, of_numbers
from agnostic.contracts.gradients import GRADIENTS, Gradients
from agnostic.contracts.ops import OPS, Array, Ops
from agnostic.errors import InvalidInput
from agnostic.registry import array_owner, default_backend, get_backend
from agnostic.text import counted

Reduce = Literal["sum", "mean"] | Sequence[Any]
Unconnected = Literal["raise", "zero", "none"]
Function = Callable[..., Any]


def gradients(
    function: Function,
    inputs: Array | Sequence[Array],
    *,
    reduce: Reduce = "sum",
    unconnected: Unconnected = "raise",
    backend: str | None = None,
) -> Any:
    """The gradient of the sum of all outputs of a function, with respect to each input.

    It works eagerly and inside torch.compile, jax.jit and tf.function. In PyTorch the result cannot be differentiated
    again.

    Args:
        function: called with the inputs as positional arguments; returns an array, or lists, tuples and dicts of
            arrays; their order counts.
        inputs: a real floating-point array, or a list or tuple of them: native arrays, or NumPy.
        reduce: how the outputs become one number. "sum": all elements of all outputs. "mean": the mean over outputs of
            each output's mean, so that the size of an output does not matter. A list: one weight per output, a number
            or an array of its shape, which multiplies the output before the sum.
        unconnected: what to do about an input that no output depends on: "raise", "zero" or "none".
        backend: NumPy inputs become arrays of this backend; None: the first installed framework.

    Returns:
        An array like the input, or a list of them for a list or tuple.

    Raises:
        InvalidInput: an input is not real floating point, or unconnected; the weights do not fit the outputs.

    Example:
        >>> import torch
        >>> x = torch.tensor([3.0, 5.0])
        >>> gradients(lambda x: [2 * x**2, (2 * x).sum()], x)
        tensor([14., 22.])
    """
    arrays, single = _listed(inputs)
    _check(function, reduce, unconnected)
    engine, ops, arrays = _engine(arrays, backend)
    found = engine.pullback(_many(ops, function), arrays, lambda outputs: cotangents(ops, outputs, reduce))
    result = [_connected(ops, g, x, i, unconnected) for i, (g, x) in enumerate(zip(found, arrays, strict=True))]
    return result[0] if single else result


def per_sample(
    function: Function,
    inputs: Array | Sequence[Array],
    batch: Array | Sequence[Array],
    *,
    reduce: Reduce = "sum",
    unconnected: Unconnected = "raise",
    backend: str | None = None,
) -> Any:
    """The gradient with respect to each input, separately for every sample of a batch.

    Args:
        function: called with the inputs and then one sample of each array of the batch, without its first axis.
        inputs: the arrays to differentiate with respect to, as in :func:`gradients`.
        batch: (N, ...) arrays.
        reduce, unconnected, backend: as in :func:`gradients`.

    Returns:
        (N, *shape of the input), or a list of them.

    Raises:
        InvalidInput: an input is not real floating point, or unconnected; the arrays of the batch differ in length.

    Example:
        >>> x, batch = torch.tensor([1.0, 2.0]), torch.eye(2)
        >>> per_sample(lambda x, row: (x * row).sum() ** 2, x, batch)
        tensor([[2., 0.],
                [0., 4.]])
    """
    arrays, single = _listed(inputs)
    rows, _ = _listed(batch)
    _check(function, reduce, unconnected)
    engine, ops, arrays = _engine(arrays, backend)
    rows = engine.detached([_native(ops, row, f"array {i} of the batch") for i, row in enumerate(rows)])
    counts = {ops.shape(row)[0] if ops.shape(row) else "no axis" for row in rows}
    if counts == {0}:
        raise InvalidInput("the batch is empty")
    if len(counts) != 1 or "no axis" in counts:
        raise InvalidInput(
            f"the arrays of a batch have equal lengths of the first axis, not {sorted(map(str, counts))}"
        )
    call = _many(ops, function)
    first = [row[0] for row in rows]
    known = engine.pullback(lambda *x: call(*x, *first), arrays, lambda outputs: cotangents(ops, outputs, reduce))
    for i, (g, x) in enumerate(zip(known, arrays, strict=True)):
        _connected(ops, g, x, i, unconnected)
    found = engine.per_sample(call, arrays, rows, lambda outputs: cotangents(ops, outputs, reduce))
    result = [None if g is None and unconnected == "none" else value for g, value in zip(known, found, strict=True)]
    return result[0] if single else result


def jacobian(
    function: Function,
    inputs: Array | Sequence[Array],
    *,
    backend: str | None = None,
) -> Any:
    """The derivative of every element of the outputs with respect to every element of the inputs.

    Args:
        function, inputs, backend: as in :func:`gradients`. The derivative of an unconnected pair is 0.

    Returns:
        (*shape of the output, *shape of the input); a list of them for a list of inputs, and a list of those for a
        function that returns several outputs, or a dict of them for one that returns a dict.

    Example:
        >>> jacobian(lambda x: x**2, torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    arrays, single = _listed(inputs)
    _check(function)
    engine, ops, arrays = _engine(arrays, backend)
    returned: Any = None

    def call(*x: Array) -> list[Array]:
        nonlocal returned
        outputs = function(*x)
        returned = list(outputs) if isinstance(outputs, Mapping) else isinstance(outputs, list | tuple)
        return _outputs(ops, outputs)

    rows = [row[0] if single else row for row in engine.jacobian(call, arrays)]
    if isinstance(returned, list) and len(returned) == len(rows):
        return dict(zip(returned, rows, strict=True))
    return rows if returned else rows[0]


def cotangents(ops: Ops, outputs: Sequence[Array], reduce: Reduce) -> list[Array]:
    """The factor of each element of each output in the sum.

    Raises:
        InvalidInput: the weights do not fit the outputs.
    """
    if isinstance(reduce, str):
        if reduce == "sum":
            return [_filled(ops, y, 1.0) for y in outputs]
        return [_mean(ops, y, len(outputs)) for y in outputs]
    if len(reduce) != len(outputs):
        raise InvalidInput(
            f"{counted(len(reduce), 'weight')} for {counted(len(outputs), 'output')}: give equal numbers"
        )
    found = []
    for weight, y in zip(reduce, outputs, strict=True):
        if isinstance(weight, str) or not (hasattr(weight, "shape") or isinstance(weight, int | float | list | tuple)):
            raise InvalidInput(f"a weight is a number or an array of its output's shape, not {describe(weight)}")
        array = ops.cast(ops.asarray(weight), ops.dtype(y))
        if ops.shape(array) not in ((), ops.shape(y)):
            raise InvalidInput(f"a weight of shape {ops.shape(array)} for an output of shape {ops.shape(y)}")
        found.append(array + _filled(ops, y, 0.0))
    return found


def _mean(ops: Ops, y: Array, outputs: int) -> Array:
    if None not in ops.shape(y):
        return _filled(ops, y, 1 / (outputs * max(math.prod(ops.shape(y)), 1)))
    ones = _filled(ops, y, 1.0)
    return ones / (outputs * ops.maximum(ops.sum(ones), 1.0))


def _filled(ops: Ops, like: Array, value: float) -> Array:
    if None not in ops.shape(like):
        return ops.cast(ops.asarray(np.full(ops.shape(like), value)), ops.dtype(like))
    # TensorFlow traces batches of any size, whose shape is known only when it runs.
    single = ops.cast(ops.asarray(np.asarray(value)), ops.dtype(like))
    return ops.where(like == like, single, single)


def _many(ops: Ops, function: Function) -> Callable[..., list[Array]]:
    return lambda *x: _outputs(ops, function(*x))


def _outputs(ops: Ops, value: Any) -> list[Array]:
    """The arrays in lists, tuples and dicts, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [x for item in value for x in _outputs(ops, item)]
    if isinstance(value, np.ndarray | np.generic):
        value = ops.asarray(of_numbers(np.asarray(value), "an output"))
    if not hasattr(value, "shape"):
        raise InvalidInput(
            f"the function returns {describe(value)}, and gradients need arrays: return only arrays, in lists, "
            "tuples or dicts"
        )
    # Nothing is connected to integers, and jax refuses them. As floating point they are constants in every framework.
    return [ops.cast(value, "float32") if ops.dtype(value).startswith(("int", "uint", "bool")) else value]


def _listed(inputs: Any) -> tuple[list[Array], bool]:
    if isinstance(inputs, list | tuple):
        if not inputs:
            raise InvalidInput("no input is given to differentiate with respect to")
        return list(inputs), False
    return [inputs], True


def _check(function: Any, reduce: Reduce = "sum", unconnected: str = "raise") -> None:
    if not callable(function):
        raise InvalidInput(f"function must be callable with the inputs, not {describe(function)}")
    if reduce not in ("sum", "mean") if isinstance(reduce, str) else not hasattr(reduce, "__len__"):
        raise InvalidInput(f"reduce is 'sum', 'mean' or a list of weights, not {reduce!r}")
    if unconnected not in ("raise", "zero", "none"):
        raise InvalidInput(f"unconnected is 'raise', 'zero' or 'none', not {unconnected!r}")


def _owner(arrays: Sequence[Any]) -> str | None:
    """The backend that owns these arrays; None for NumPy arrays."""
    names = {found.name for x in arrays if (found := array_owner(x)) is not None}
    if len(names) > 1:
        raise InvalidInput(f"the inputs belong to several frameworks: {', '.join(sorted(names))}")
    return next(iter(names), None)


def _engine(arrays: Sequence[Any], backend: str | None) -> tuple[Gradients, Ops, list[Array]]:
    """(the backend's gradients, its ops, native arrays)."""
    name = _owner(arrays) or backend
    owner = default_backend() if name is None else get_backend(name)
    ops = owner[OPS].ops_for(arrays)
    native = [_native(ops, x, f"input {i}") for i, x in enumerate(arrays)]
    for i, x in enumerate(native):
        if not ops.dtype(x).startswith(("float", "bfloat")):
            raise InvalidInput(
                f"input {i} is {ops.dtype(x)}, and gradients need real floating-point inputs: cast it, or, for values "
                "such as labels, leave it out: gradients(lambda x: function(x, labels), x)"
            )
    return owner[GRADIENTS], ops, native


def _native(ops: Ops, x: Any, what: str) -> Array:
    """An input as a native array: numbers and nested lists are converted as NumPy does."""
    if isinstance(x, int | float | list | tuple | np.generic | np.ndarray):
        try:
            x = np.asarray(x)
        except ValueError:  # lists of unequal lengths
            raise InvalidInput(f"{what} is {describe(x)}, of unequal lengths: give an array") from None
        return ops.asarray(of_numbers(x, what))
    if not hasattr(x, "shape"):
        raise InvalidInput(f"{what} is {describe(x)}, and gradients need arrays: leave it out")
    return ops.asarray(x)


def _connected(ops: Ops, gradient: Array | None, x: Array, index: int, unconnected: str) -> Array | None:
    if gradient is not None:
        return gradient
    if unconnected == "raise":
        raise InvalidInput(
            f"no output depends on input {index}, of shape {ops.shape(x)}: leave it out, or give "
            "unconnected='zero' or 'none'"
        )
    return _filled(ops, x, 0.0) if unconnected == "zero" else None
