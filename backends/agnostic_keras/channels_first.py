"""How source for Keras is spelled whose images keep their channels before height and width.

Convolutions, batch norms and plain pooling have a ``data_format`` of their own. What Keras has with channels last alone
is spelled so, between two moves of the axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agnostic.port.code import Apply, At, Code, Name, call
from agnostic.port.dialect import LayerNode, Unwritable
from agnostic.port.layout import IMAGES
from agnostic.port.spelling import Call, direct, one, ones
from agnostic.program.nodes import Node, Value

FORMAT = {"data_format": "channels_first"}


def layer(node: Node, last: Callable[[Node], LayerNode | None]) -> LayerNode | None:
    """The layer that a node becomes.

    Args:
        last: what it becomes with channels last.
    """
    if not _is_image(node):
        return last(node)
    found = last(_last(node))
    if found is None:
        return None
    native = LAYERS.get(node.operator)
    return replace(found, apply=_between(found.apply)) if native is None else native(node, found)


def expression(node: Node, operands: Sequence[Code], last: Callable[[Node, Sequence[Code]], Code]) -> Code:
    """The code of a node.

    Args:
        last: its code with channels last.

    Raises:
        Unwritable: there is none.
    """
    if not _is_image(node):
        return last(node, operands)
    native = SPELLINGS.get(node.operator)
    code = None if native is None else native(Call(node, operands))
    if code is not None:
        return code
    if len(node.outputs) > 1:
        raise Unwritable("has no spelling in Keras with channels first")
    return _moved(last(_last(node), [_moved(operands[0], 1, -1), *operands[1:]]), -1, 1)


def _is_image(node: Node) -> bool:
    x = node.operands[0] if node.operands else None
    return node.operator in IMAGES and isinstance(x, Value) and len(x.shape) > 2


def _moved(x: Code, source: int, target: int) -> Code:
    return call("ops.moveaxis", x, source, target)


def _last(node: Node) -> Node:
    """The same with its channels behind height and width."""

    def moved(value: Value) -> Value:
        return Value(value.id, (value.shape[0], *value.shape[2:], value.shape[1]), value.dtype)

    x = node.operands[0]
    assert isinstance(x, Value)
    return replace(
        node, operands=(moved(x), *node.operands[1:]), outputs=tuple(map(moved, node.outputs)),
        attributes={**node.attributes, "channel_axis": -1},
    )  # fmt: skip


def _between(apply: Callable[[Code, Sequence[Code]], Code]) -> Callable[[Code, Sequence[Code]], Code]:
    def moved(layer: Code, operands: Sequence[Code]) -> Code:
        return _moved(apply(layer, [_moved(operands[0], 1, -1), *operands[1:]]), -1, 1)

    return moved


def _padded(x: Code, padding: Sequence[tuple[int, int]], value: Any = None) -> Code:
    """The image with numbers around it, or itself."""
    if not any(map(any, padding)):
        return x
    widths = ((0, 0), (0, 0), *((int(low), int(high)) for low, high in padding))
    return call("ops.pad", x, widths, **({} if value is None else {"constant_values": value}))


def _with(found: LayerNode, apply: Callable[[Code, Sequence[Code]], Code], **keywords: Any) -> LayerNode:
    """The layer with other arguments."""
    known = {name: value for name, value in found.constructor.keywords if name not in keywords}
    constructor = replace(found.constructor, keywords=(*known.items(), *keywords.items()))
    return replace(found, constructor=constructor, apply=apply)


# Layers ---------------------------------------------------------------------------------------------------------------
def _convolution(node: Node, found: LayerNode) -> LayerNode:
    given = node.attributes
    # With strides Keras pads the other side; the subclass that does not knows channels last alone.
    half = ones(given["stride"]) and dict(found.constructor.keywords)["padding"] == "same"
    same = half or bool(given.get("same"))

    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        return Apply(layer, (operands[0] if same else _padded(operands[0], given["padding"]),))

    called = found.constructor.function.text.rpartition(".")[2]
    plain = replace(found, constructor=call(f"layers.{called}", **dict(found.constructor.keywords)))
    return _with(plain, apply, padding="same" if same else "valid", **FORMAT)


def _transposed(node: Node, found: LayerNode) -> LayerNode:
    def apply(layer: Code, operands: Sequence[Code]) -> Code:
        code = found.apply(layer, operands)
        # What is cut away is cut one axis further back.
        return At(code.of, Name(f":, {code.index.text}")) if isinstance(code, At) else code

    return _with(found, apply, **FORMAT)


def _batch_norm(node: Node, found: LayerNode) -> LayerNode:
    return _with(found, direct, axis=1)


LAYERS: Mapping[str, Callable[[Node, LayerNode], LayerNode]] = {
    "convolution": _convolution,
    "transposed_convolution": _transposed,
    "batch_norm": _batch_norm,
}


# Operations -----------------------------------------------------------------------------------------------------------
def _max_pool(c: Call) -> Code:
    if c.get("ceil_mode", False) or c.get("same") or not ones(c["dilation"]):
        return None
    x = _padded(c.x, c["padding"], float("-inf"))
    return call("ops.max_pool", x, pool_size=one(c["kernel"]), strides=one(c["stride"]), **FORMAT)


def _average_pool(c: Call) -> Code:
    padded = any(map(any, c["padding"]))
    if c.get("ceil_mode", False) or c.get("same") or c.get("divisor") or (padded and not c.get("count_padding", True)):
        return None
    x = _padded(c.x, c["padding"])
    return call("ops.average_pool", x, pool_size=one(c["kernel"]), strides=one(c["stride"]), **FORMAT)


def _adaptive(c: Call) -> Code:
    if any(n != 1 for n in c["sizes"]):
        return None
    word = "mean" if "average" in c.node.operator else "max"
    return call(f"ops.{word}", c.x, axis=tuple(range(2, c.rank)), keepdims=True)


SPELLINGS: Mapping[str, Callable[[Call], Code]] = {
    "max_pool": _max_pool,
    "average_pool": _average_pool,
    "adaptive_average_pool": _adaptive,
    "adaptive_max_pool": _adaptive,
}
"""None where Keras has it with channels last alone."""
