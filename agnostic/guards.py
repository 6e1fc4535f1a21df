"""Guards against training on with a loss that is not a number.

The logarithm of a negative number is NaN, but its gradient is 1/x, finite, in every framework: the weights go on being
updated, and look healthy. ``agnostic.watch(model, nonfinite="raise")`` stops at the first array that is not finite;
what it says is made here, and what it hooks into are the backends' own ``guards``.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agnostic.errors import NonFinite
from agnostic.ops import Array, Ops


def check_finite(
    ops: Ops, named: Mapping[str, Array] | Iterable[tuple[str, Array]], *, kind: str, when: str = ""
) -> None:
    """Raise for the first of several arrays that is not finite.

    Args:
        named: arrays by name, in the order in which they came to be: the first that fails is the one to look at.
        kind: what they are, in an error: ``"layer"``, ``"loss term"``, ``"gradient"``.
        when: a clause for the error, such as ``"at step 12"``.

    Raises:
        NonFinite: names the first that is not finite, and says how many of its elements are not, and of what kind.
    """
    for name, x in named.items() if isinstance(named, Mapping) else named:
        if not is_finite(ops, x):
            raise error(kind, name, ops.numpy(x), when=when)


def is_finite(ops: Ops, x: Array) -> bool:
    """Whether all elements of an array are finite; integers are."""
    if not ops.dtype(x).startswith(("float", "bfloat")):
        return True
    # A sum is finite if all its terms are (and may overflow if they are): one pass, without a temporary.
    return bool(ops.numpy(ops.isfinite(ops.sum(x)))) or not any(count(ops.numpy(x)))


def count(values: npt.ArrayLike) -> tuple[int, int]:
    """How many elements are NaN, and how many infinite."""
    array = np.asarray(values)
    if array.dtype.kind not in "fc":
        return 0, 0
    return int(np.isnan(array).sum()), int(np.isinf(array).sum())


def error(
    kind: str, name: str, values: npt.ArrayLike, *, when: str = "", look: str = "look at what goes into it"
) -> NonFinite:
    """The error for an array that is not finite.

    Args:
        kind, name: of the array, as in :func:`check_finite`.
        values: the array.
        when: a clause such as ``"at step 12"``.
        look: what to do about it, or what is known of the cause.
    """
    nans, infinities = count(values)
    return NonFinite(
        f"{kind} {name!r} is not finite{' ' + when if when else ''}: {nans} NaN and {infinities} infinite of "
        f"{np.size(values)} elements, and it is the first; {look}"
    )


def cause(inputs: Iterable[tuple[str, bool]], weights: Iterable[tuple[str, bool]]) -> str:
    """Where the trouble in a layer comes from, for an error.

    Args:
        inputs, weights: (name, whether it is finite) of what went into the layer.
    """
    given, own = list(inputs), list(weights)
    for name, finite in own:
        if not finite:
            return f"its {name} is not finite: the step that was made before spoiled it"
    if not all(finite for _, finite in given):
        return "what it was given is not finite already: look at the data, or at what the model does before it"
    return "what it was given" + (" and its weights are" if own else " is") + " finite: it happens in the layer itself"


def caller(*inside: str) -> tuple[str, str]:
    """The line of the user's own program that is running: (its text, "file.py:12").

    Args:
        inside: top-level packages whose frames are passed over.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in ("agnostic", "agnostic_torch", "agnostic_keras", "contextlib", "functools", *inside):
            name, number = frame.f_code.co_filename, frame.f_lineno
            return linecache.getline(name, number).strip(), f"{Path(name).name}:{number}"
        frame = frame.f_back
    return "", "an unknown line"
