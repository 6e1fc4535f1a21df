"""Tables of functions by names, filled by a decorator where each function is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def filling(table: dict[str, F]) -> Callable[..., Callable[[F], F]]:
    """A decorator ``@fills(*names)`` that puts a function into a table, under each of the names."""

    def fills(*names: str) -> Callable[[F], F]:
        def register(function: F) -> F:
            table.update(dict.fromkeys(names, function))
            return function

        return register

    return fills
