"""Assertions on models, for anybody's test suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def assert_same_model(
    a: Any, b: Any, inputs: Any = None, *, map: Mapping[str, str] | None = None, strict: bool = False
) -> None:
    """Fail where B does something else than A by more than arithmetic explains; the message is the whole table.

    Args:
        a, b, inputs, map, strict: as in :func:`agnostic.compare`.

    Raises:
        AssertionError: they differ; says where first, and why.

    Example:
        >>> ag.testing.assert_same_model(model, model, images)
    """
    __tracebackhide__ = True
    from agnostic.compare.verbs import compare

    found = compare(a, b, inputs, map=map, strict=strict)
    if not found.same:
        raise AssertionError(f"\n{found}")
