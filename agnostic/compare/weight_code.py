"""Code that puts A's weights where B's operators read them, in NumPy: frameworks keep them in other orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from agnostic.compare.replay import slots
from agnostic.compare.sides import Side
from agnostic.contracts.fixes import Fixes
from agnostic.program.nodes import Leaf, Node, Value

Text = Callable[[Node, list[str]], str]

_MOVES: Mapping[str, Text] = {
    "permute": lambda node, x: f"{x[0]}.transpose({tuple(node.attributes['axes'])})",
    "reshape": lambda node, x: f"{x[0]}.reshape({node.outputs[0].shape})",
    "slice": lambda node, x: f"{x[0]}[{':, ' * _axis(node)}{_range(node)}]",
    "select": lambda node, x: f"{x[0]}[{':, ' * _axis(node)}{node.attributes['index']}]",
    "flip": lambda node, x: f"np.flip({x[0]}, {tuple(node.attributes['axes'])})",
    "concatenate": lambda node, x: f"np.concatenate([{', '.join(x)}], {node.attributes['axis']})",
    "stack": lambda node, x: f"np.stack([{', '.join(x)}], {node.attributes['axis']})",
    "identity": lambda node, x: x[0],
    "cast": lambda node, x: x[0],
}
"""Operators that only move numbers, over the texts of their operands."""

_ALL: Mapping[str, Text] = {
    **_MOVES,
    "add": lambda node, x: f"({x[0]} + {x[1]})",
    "multiply": lambda node, x: f"({x[0]} * {x[1]})",
}


def carried(sides: tuple[Side, Side], fixes: tuple[Fixes, Fixes], ours: Value, theirs: Value) -> str:
    """Code that gives B's weight the numbers of A's.

    Args:
        sides: A and B.
        fixes: of both frameworks.
        ours, theirs: the weights as the operators take them.

    Returns:
        "" where one of them is not a weight that is only moved; A's may be a sum of weights, as of two biases.
    """
    (a, b), (reading, writing) = sides, fixes
    values = _text(a, ours, _ALL, lambda leaf: reading.reading("other", leaf.role, leaf.name))
    leaf = _only(b, theirs)
    if values is None or leaf is None or math.prod(ours.shape) != math.prod(theirs.shape):
        return ""
    whole = _put_back(b, theirs, values if ours.shape == theirs.shape else f"{values}.reshape({theirs.shape})")
    if whole is not None:
        return _imported(sides, writing.writing(leaf.role, leaf.name, whole))
    read = writing.reading("model", leaf.role, leaf.name)
    places = _text(b, theirs, _MOVES, lambda leaf: "places")
    written = writing.writing(leaf.role, leaf.name, "array")
    if read is None or places is None or written is None:
        return ""
    return _imported(
        sides,
        f"array = np.array({read}); places = np.arange(array.size).reshape(array.shape)\n"
        f"array.flat[{places}.ravel()] = {values}.ravel()\n{written}",
    )


def _imported(sides: tuple[Side, Side], code: str | None) -> str:
    """Code with what it needs; the frameworks' packages are called as they are."""
    if code is None:
        return ""
    packages = [("np", "numpy as np"), *((name, name) for name in (side.run.program.framework for side in sides))]
    needed = dict.fromkeys(f"import {package}" for name, package in packages if f"{name}." in code)
    return "\n".join(("; ".join(needed), code)) if needed else code


def _text(side: Side, value: Value, texts: Mapping[str, Text], leaf_text: Callable[[Leaf], str | None]) -> str | None:
    """A value as an expression over leaves; None where other operators make it."""
    made = side.made_by(value)
    if made is None:
        leaf = side.leaves.get(value)
        return None if leaf is None or leaf.role not in ("parameter", "buffer") else leaf_text(leaf)
    text, given = texts.get(made.operator), list[str]()
    for x in slots(made):
        part = _text(side, x, texts, leaf_text) if isinstance(x, Value) else repr(x)
        if part is None:
            return None
        given.append(part)
    return None if text is None else text(made, given)


def _only(side: Side, value: Value) -> Leaf | None:
    """The one weight that a value is made of."""
    found: dict[str, Leaf] = {}

    def seen(leaf: Leaf) -> str:
        found[leaf.name] = leaf
        return ""

    made = _text(side, value, _MOVES, seen)
    return next(iter(found.values())) if made is not None and len(found) == 1 else None


def _put_back(side: Side, value: Value, text: str) -> str | None:
    """The whole weight, of a value for which it is only put into another order; None where it is not."""
    made = side.made_by(value)
    while made is not None:
        if made.operator not in ("permute", "reshape", "identity", "cast"):
            return None
        [source] = slots(made)
        if made.operator == "permute":
            axes = tuple(made.attributes["axes"])
            text += f".transpose({tuple(axes.index(k) for k in range(len(axes)))})"
        elif made.operator == "reshape":
            text += f".reshape({source.shape})"
        made = side.made_by(source)
    return text


def _axis(node: Node) -> int:
    axis: int = node.attributes["axis"]
    return axis % len(node.operands[0].shape)  # type: ignore[union-attr]


def _range(node: Node) -> str:
    given: list[Any] = [node.attributes.get(name) for name in ("start", "stop", "step")]
    start, stop, step = ("" if x is None else str(x) for x in given)
    return f"{start}:{stop}" if step in ("", "1") else f"{start}:{stop}:{step}"
