"""Padding by a layer of its own against padding by the convolution or the pool after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agnostic.compare.edits import Edit
from agnostic.compare.lowering import kind

PAD = "constant_pad_nd"
POOL_MISTAKES = {"max": "max_pool_padding", "avg": "average_pool_padding"}
"""By the first letters of a pool: what is wrong where it is given zeros that it would not have added itself."""


def differing(edits: Sequence[Edit]) -> tuple[Edit, ...]:
    """The edits without those that only say that a convolution's zeros are added by another operator."""
    moved = _moved(edits)
    if moved is None or kind(moved[1].b or moved[1].a) != "convolution":  # type: ignore[arg-type]
        return tuple(edits)
    left = tuple(edit for edit in edits if edit not in moved)
    return left or tuple(edits)


def pool_mistake(edits: Sequence[Edit]) -> tuple[str, Edit] | None:
    """The key of a pool whose padding is a layer of zeros, and the edit of the pool; None where there is none."""
    moved = _moved(edits)
    if moved is None or moved[1].b is None:
        return None
    key = POOL_MISTAKES.get(kind(moved[1].b)[:3])
    return None if key is None else (key, moved[1])


def _moved(edits: Sequence[Edit]) -> tuple[Edit, Edit] | None:
    """The edit of a padding with zeros, and that of the window after it which pads as much on the other side."""
    for pad in edits:
        node = pad.b if pad.kind == "extra" else pad.a if pad.kind == "missing" else None
        if node is None or kind(node) != PAD or node.attributes.get("value", 0) != 0:
            continue
        sign = 1 if pad.kind == "extra" else -1
        for window in edits:
            if window.kind != "attribute" or window.name != "padding":
                continue
            ours, theirs = _numbers(window.ours), _numbers(window.theirs)
            if ours is None or theirs is None or len(ours) != len(theirs):
                continue
            # From the last axis to the first, before and after.
            wanted = [sign * (a - b) for a, b in zip(reversed(ours), reversed(theirs), strict=True) for _ in range(2)]
            if list(node.attributes.get("pad", ())) == wanted:
                return pad, window
    return None


def _numbers(value: Any) -> tuple[int, ...] | None:
    listed = isinstance(value, tuple | list) and all(isinstance(x, int) for x in value)
    return tuple(value) if listed else None
