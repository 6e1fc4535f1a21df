"""One operator of a recorded run in float64, by the vocabulary's references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from agnostic.errors import InvalidInput
from agnostic.program.nodes import Array, Node
from agnostic.program.vocabulary import get
from agnostic.reference.rounding import rounded

HALVES = ("float16", "bfloat16")

_REFUSALS = (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, RuntimeError)
"""What NumPy raises where operands do not fit is of many classes."""


def evaluated(node: Node, operands: Sequence[Any]) -> tuple[Array, ...]:
    """Evaluate an operator of the vocabulary; see :meth:`agnostic.contracts.recording.Recordings.evaluate`.

    A cast to half precision rounds, and any other cast to floating point keeps the digits.

    Raises:
        InvalidInput: the operator does not take such operands.
    """
    try:
        with np.errstate(all="ignore"):
            result = get(node.operator).evaluate(*operands, **node.attributes)
            if node.operator == "cast" and node.attributes["dtype"] in HALVES:
                result = rounded(result, node.attributes["dtype"])
    except _REFUSALS as error:
        if isinstance(error, InvalidInput):
            raise
        said = " ".join(str(error).split())[:200]
        raise InvalidInput(f"{node.operator} does not take these operands: {said}") from error
    return tuple(map(widened, result if isinstance(result, tuple) else (result,)))


def widened(x: Any) -> Array:
    """An array in the type in which a replay holds its numbers."""
    found: Array = np.asarray(x)
    if found.dtype.kind == "f":
        found = found.astype(np.float64, copy=False)
    return found.astype(np.complex128, copy=False) if found.dtype.kind == "c" else found
