"""Every operation of the Ops contract on the same float32 numbers: what backends are compared by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from agnostic.ops import Ops

EPS = float(np.finfo(np.float32).eps)


def results(ops: Ops) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """(name of the operation, its result as NumPy) for every operation, made from a fixed seed."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(2))
    a, b, positive = ops.asarray(x), ops.asarray(y), ops.asarray(np.abs(x) + np.float32(0.1))
    images = ops.asarray(rng.random((2, 7, 9, 3), np.float32))
    matrices = ops.asarray((rng.normal(size=(2, 2, 3)) * (1, 1, 4)).astype(np.float32))
    index, along = ops.asarray(rng.integers(0, 4, (2, 3))), ops.asarray(rng.integers(0, 4, (3, 2, 5)))
    found: dict[str, Any] = {
        "asarray": a,
        "cast": ops.cast(a, "float32"),
        "reshape": ops.reshape(a, (-1, 5)),
        "transpose": ops.transpose(a, (2, 0, 1)),
        "concatenate": ops.concatenate([a, b], 1),
        "stack": ops.stack([a, b], 1),
        "expand": ops.expand(a[:, :1], (3, 4, 5)),
        "repeat": ops.repeat(a, 2, 1),
        "flip": ops.flip(a, (0, 2)),
        "flip of all axes": ops.flip(a, None),
        "pad": ops.pad(a, ((1, 0), (0, 2), (1, 1)), 2.5),
        "take": ops.take(a, index, 1),
        "take_along_axis": ops.take_along_axis(a, along, 1),
        "where": ops.where(a > b, a, b),
        "maximum": ops.maximum(a, b),
        "maximum of a number": ops.maximum(a, 0.25),
        "minimum": ops.minimum(a, b),
        "clip": ops.clip(a, -0.5, 0.75),
        "isfinite": ops.isfinite(ops.where(a > b, a, a * float("inf"))),
        "matmul": ops.matmul(a, ops.transpose(b, (0, 2, 1))),
        "einsum": ops.einsum("nab,nac->nbc", a, b),
        "irfft2": ops.irfft2(a, b, (4, 8)),
        "irfft2 of an odd width": ops.irfft2(a, b, (4, 9)),
        "warp": ops.warp(images, matrices, (5, 6)),
        "warp of a row": ops.warp(images[:, :1], matrices, (5, 6)),
        "stop_gradient": ops.stop_gradient(a),
        "shape": ops.asarray(np.array(ops.shape(a))),
    }
    for name in ("abs", "sign", "square", "exp", "sin", "cos", "tanh", "sigmoid", "floor"):
        found[name] = getattr(ops, name)(a)
    for name in ("sqrt", "log"):
        found[name] = getattr(ops, name)(positive)
    for name in ("sum", "mean", "max", "min"):
        function = getattr(ops, name)
        found[name] = function(a)
        found[f"{name} of axes"] = function(a, axis=(0, -1), keepdims=True)
        found[f"{name} of an axis"] = function(a, axis=1)
    for name, value in found.items():
        yield name, ops.numpy(value)


def tolerance(right: np.ndarray[Any, Any]) -> float:
    """The largest absolute error of a result in float32, given the right one.

    An elementwise operation is right to a few units in the last place. A reduction of K numbers in any order errs by at
    most ``K * eps * sum |terms|`` (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 4.2); all
    cases reduce at most 60 numbers of size about 1, and the coordinates of ``warp`` are about 10 pixels: 60 units of
    the largest value bound both.
    """
    finite = np.abs(right[np.isfinite(right)]) if right.dtype.kind == "f" else np.zeros(0)
    return 60 * EPS * max(1.0, float(finite.max(initial=0.0)))
