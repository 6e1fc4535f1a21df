"""Guards against training on with a loss that is not a number.

The logarithm of a negative number is NaN, but its gradient is 1/x, finite, in every framework: the weights go on being
updated, and look healthy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
        if not ops.dtype(x).startswith(("float", "bfloat")):
            continue
        # A sum is finite if all its terms are (and may overflow if they are): one pass, without a temporary.
        if bool(ops.numpy(ops.isfinite(ops.sum(x)))):
            continue
        values = ops.numpy(x)
        nans, infinities = int((values != values).sum()), int((abs(values) == float("inf")).sum())
        if nans or infinities:
            raise NonFinite(
                f"{kind} {name!r} is not finite{' ' + when if when else ''}: {nans} NaN and {infinities} infinite of "
                f"{values.size} elements, and it is the first; look at what goes into it"
            )
