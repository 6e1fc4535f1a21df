"""Checks of arguments that several modules share."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from agnostic.errors import InvalidInput, UnknownName, nearest


def whole_number(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
    """An argument as a Python integer.

    Args:
        name: of the argument.
        value: an integer of any kind: Python's, NumPy's, an array or a tensor of one integer; not a bool or a float,
            whose fraction ``int()`` would drop.
        least: the smallest integer allowed.
        most: the largest integer allowed; None: no limit.

    Raises:
        InvalidInput: it is not an integer, or out of range.
    """
    try:
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None or isinstance(value, bool) or number < least or (most is not None and number > most):
        bounds = f"{least} or more" if most is None else f"{least} to {most}"
        raise InvalidInput(f"{name} must be an integer of {bounds}, not {value!r}")
    return number


def one_of(
    name: str, value: Any, choices: Iterable[Any], error: type[InvalidInput | UnknownName] = InvalidInput
) -> None:
    """Raise unless an argument is one of its choices.

    Args:
        name: of the argument.
        value: what was given.
        choices: what it may be.
        error: the class of the error.

    Raises:
        InvalidInput: it is none of them; or the other error.
    """
    known = list(choices)
    if value not in known:
        texts = list(map(str, known))
        raise error(f"{name} is one of {', '.join(texts)}, not {value!r}{nearest(str(value), texts)}")
