"""What the vocabulary does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agnostic.errors import InvalidInput
from agnostic.program.vocabulary import operator


def _shape(operands: Any, *, shapes: Any, **rest: Any) -> Any:
    return shapes


def _flops(operands: Any, *, out: Any, meaning: Any = None, **rest: Any) -> int:
    return 0 if meaning is None or meaning.flops is None else int(meaning.flops(*operands))


@operator(shape=_shape, flops=_flops)
def custom(
    operands: Sequence[Any],
    *,
    name: str,
    shapes: Any,
    arguments: tuple[str, ...] = (),
    meaning: Any = None,
    reason: str = "",
    function: str = "",
) -> Any:
    """An operator that is not in the vocabulary: a framework's own, or the user's.

    ``f(operands)``, where ``f`` is what ``meaning``, a :class:`agnostic.program.custom.CustomOperator`, says it is.

    Args:
        operands: arrays, numbers and text, in the order of the operator's parameters.
        name: of the operator in its framework.
        shapes: what it gives, as the framework says: a shape, or several.
        arguments: the names of its parameters.
        meaning: what is known of it; None: nothing.
        reason: why it is not in the words of the vocabulary.
        function: what a written file calls it.
    """
    if meaning is None or meaning.reference is None:
        raise InvalidInput(
            f"operator {name} has no reference in NumPy: give it one, agnostic.custom_operator(..., reference=...)"
        )
    found = meaning.reference(*operands)
    return tuple(found) if isinstance(found, list | tuple) else found
