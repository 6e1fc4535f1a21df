"""Programs in which the order of axes is nobody's: channels first and channels last compute the same values.

A permutation is not computed where it stands. It is carried along, and operators that look at single numbers or at
named axes run on the array before it; only where the order matters (a product, a reshape that is read) is it carried
out. Windows and norms of channels run with the channels on axis 1, whatever the framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.nodes import Node, Program, Value, map_values
from agnostic.program.runs import Run
from agnostic.tables import filling

Axes = tuple[int, ...]


@dataclass(frozen=True)
class Turned:
    """A value that is another one's axes in another order, and then perhaps another shape.

    Attributes:
        base: the other value.
        axes: its axes in the order that the value has them.
        shape: of the value.
        origin: of the operator that turned it.
    """

    base: Value
    axes: Axes
    shape: tuple[int, ...]
    origin: NodeOrigin

    @property
    def plain(self) -> bool:
        """Whether nothing but the order of axes was changed."""
        return self.shape == tuple(self.base.shape[k] for k in self.axes)


def without_orders(run: Run) -> Run:
    """The run with permutations only where they matter."""
    return _Pass(run).done()


OrderRule = Callable[["_Pass", Node], bool]
RULES: dict[str, OrderRule] = {}
rules = filling(RULES)
"""What operators do with turned operands: write nodes and name the node's outputs; False: they need them in order."""


@dataclass
class _Pass:
    run: Run
    builder: Builder = field(default_factory=Builder)
    turned: dict[Value, Turned] = field(default_factory=dict)
    new: dict[Value, Value] = field(default_factory=dict)
    carried: dict[tuple[Value, Axes, tuple[int, ...]], Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        program = self.run.program
        self.builder = Builder.of(program)

    def done(self) -> Run:
        """All nodes, one after the other."""
        program = self.run.program
        for leaf in program.of_role("input"):
            if _is_channels_last(leaf.value, program):
                axes = (0, len(leaf.value.shape) - 1, *range(1, len(leaf.value.shape) - 1))
                self.turn(leaf.value, self.builder.emit("permute", leaf.value, axes=axes), _inverse(axes))
        for node in program.nodes:
            self.add(node)
        outputs = tuple((path, self.in_order(value)) for path, value in program.outputs)
        calls = tuple(
            replace(call, inputs=tuple(map(self.before, call.inputs)), outputs=tuple(map(self.before, call.outputs)))
            for call in self.run.calls
        )
        done = replace(program, leaves=tuple(self.builder.leaves), nodes=tuple(self.builder.nodes), outputs=outputs)
        return replace(self.run, program=done, calls=calls)

    def add(self, node: Node) -> None:
        """Write a node."""
        self.builder.origin = NodeOrigin.of(node)
        rule = RULES.get(node.operator)
        start, carried = len(self.builder.nodes), len(self.carried)
        if rule is not None and not any(v in self.run.drawn for v in node.outputs) and rule(self, node):
            return
        del self.builder.nodes[start:]
        while len(self.carried) > carried:
            self.carried.popitem()
        operands = tuple(map_values(x, self.in_order) for x in node.operands)
        self.builder.nodes.append(replace(node, operands=operands))

    # Values ----------------------------------------------------------------------------------------------------------
    def before(self, value: Value) -> Value:
        """What a value was before its axes were put in its order."""
        found = self.turned.get(value)
        return self.new.get(value, value) if found is None else found.base

    def in_order(self, value: Value) -> Value:
        """A value in its own order, which is carried out now."""
        found = self.turned.get(value)
        if found is None:
            return self.new.get(value, value)
        return self.carry_out(found.base, found.axes, found.shape, found.origin)

    def carry_out(self, base: Value, axes: Axes, shape: tuple[int, ...], origin: NodeOrigin | None = None) -> Value:
        """Another value's axes in an order, and in a shape."""
        key = base, axes, shape
        if key not in self.carried:
            now, self.builder.origin = self.builder.origin, origin or self.builder.origin
            value = base if axes == tuple(range(len(axes))) else self.builder.emit("permute", base, axes=axes)
            self.carried[key] = value if value.shape == shape else self.builder.emit("reshape", value, shape=shape)
            self.builder.origin = now
        return self.carried[key]

    def turn(
        self, value: Value, base: Value, axes: Axes, shape: tuple[int, ...] | None = None, like: Turned | None = None
    ) -> bool:
        """Name a value: another one's axes in this order, which this operator gave it, or the one that turned another.

        Args:
            like: that other value; None for this operator.
        """
        shape = value.shape if shape is None else shape
        if axes == tuple(range(len(axes))) and shape == base.shape:
            self.new[value] = base
        else:
            self.turned[value] = Turned(base, axes, shape, self.builder.origin if like is None else like.origin)
        return True

    def plain(self, operand: Any) -> Turned | None:
        """An operand whose order alone was changed; one in order is its own base."""
        if not isinstance(operand, Value):
            return None
        found = self.turned.get(operand)
        if found is None:
            base = self.new.get(operand, operand)
            return Turned(base, tuple(range(len(base.shape))), base.shape, self.builder.origin)
        return found if found.plain else None

    def emit(self, node: Node, operands: Sequence[Any], **attributes: Any) -> Any:
        """The operator of a node on other operands, with some attributes otherwise."""
        [given] = node.outputs
        found = {key: x for key, x in {**node.attributes, **attributes}.items() if key != "dtype"}
        return self.builder.emit(node.operator, *operands, dtype=given.dtype, **found)


def _inverse(axes: Axes) -> Axes:
    return tuple(axes.index(k) for k in range(len(axes)))


def _is_channels_last(value: Value, program: Program) -> bool:
    """Whether what reads an input, perhaps after arithmetic, has the channels on its last axis."""
    seen = {value}
    for node in program.nodes:
        if not any(v in seen for v in node.reads):
            continue
        rank = len(value.shape)
        axis = node.attributes.get("channel_axis")
        if node.operator in _CHANNELS and axis is not None:
            return rank > 2 and axis % rank == rank - 1
        if node.operator in _THROUGH and node.outputs[0].shape[-1:] == value.shape[-1:]:
            seen.update(node.outputs)
    return False


# Single numbers ------------------------------------------------------------------------------------------------------
_NUMBERS = frozenset({
    "activation", "unary", "binary", "add", "subtract", "multiply", "divide", "power", "maximum", "minimum", "where",
    "clip", "cast", "identity", "dropout",
})  # fmt: skip


_THROUGH = _NUMBERS | {"pad", "flip", "roll", "concatenate"}
"""Operators between an image and the first that looks at its channels."""


@rules(*sorted(_NUMBERS))
def _numbers(turner: _Pass, node: Node) -> bool:
    if node.operator == "activation" and node.attributes["function"] in ("glu", "softmax", "log_softmax"):
        return False
    given = [x for x in node.operands if isinstance(x, Value)]
    [output] = node.outputs
    if not any(x in turner.turned for x in given):
        return False
    if len(given) == 1 and len(turner.turned[given[0]].shape) == len(output.shape):
        found = turner.turned[given[0]]
        operands = [found.base if isinstance(x, Value) else x for x in node.operands]
        return turner.turn(output, turner.emit(node, operands), found.axes, found.shape, found)
    whole = next((x for x in given if x.shape == output.shape), None)
    lead = None if whole is None else turner.plain(whole)
    if lead is None:
        return False
    operands = [_into(turner, x, lead.axes, len(output.shape)) if isinstance(x, Value) else x for x in node.operands]
    return turner.turn(output, turner.emit(node, operands), lead.axes, like=lead)


def _into(turner: _Pass, x: Value, axes: Axes, rank: int) -> Value:
    """An operand that is broadcast, with its axes as those of another value's base."""
    found = turner.plain(x)
    if found is not None and found.axes == axes:
        return found.base
    inverse = _inverse(axes)
    if found is not None and len(found.axes) == rank:
        together = tuple(found.axes[k] for k in inverse)
        return turner.carry_out(found.base, together, tuple(found.base.shape[k] for k in together))
    x = turner.in_order(x)
    if not x.shape:
        return x
    wide = (1,) * (rank - len(x.shape)) + x.shape
    shape = tuple(wide[k] for k in inverse)
    spread = x if wide == x.shape else turner.carry_out(x, tuple(range(len(x.shape))), wide)
    return turner.carry_out(spread, inverse, shape)


# Named axes ----------------------------------------------------------------------------------------------------------
@rules("softmax", "log_softmax", "cumulative")
def _along(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    if found is None or not _is_turned(turner, node):
        return False
    axis = found.axes[node.attributes["axis"] % len(found.axes)]
    return turner.turn(node.outputs[0], turner.emit(node, [found.base], axis=axis), found.axes, like=found)


@rules("flip", "roll")
def _moved(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    if found is None or not _is_turned(turner, node):
        return False
    axes = tuple(found.axes[axis % len(found.axes)] for axis in node.attributes["axes"])
    return turner.turn(node.outputs[0], turner.emit(node, [found.base], axes=axes), found.axes, like=found)


@rules("pad")
def _pad(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    if found is None or not _is_turned(turner, node):
        return False
    inverse = _inverse(found.axes)
    widths = tuple(node.attributes["widths"][k] for k in inverse)
    return turner.turn(node.outputs[0], turner.emit(node, [found.base], widths=widths), found.axes, like=found)


@rules("slice")
def _slice(turner: _Pass, node: Node) -> bool:
    return _along(turner, node)


@rules("select")
def _select(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    if found is None or not _is_turned(turner, node):
        return False
    gone = found.axes[node.attributes["axis"] % len(found.axes)]
    base = turner.emit(node, [found.base], axis=gone)
    return turner.turn(node.outputs[0], base, _left(found.axes, {gone}), like=found)


@rules("reduce", "variance", "norm")
def _reduce(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    given = node.attributes.get("axes")
    if found is None or given is None or not _is_turned(turner, node):
        return False
    gone = {found.axes[axis % len(found.axes)] for axis in given}
    base = turner.emit(node, [found.base], axes=tuple(sorted(gone)))
    axes = found.axes if node.attributes.get("keep") else _left(found.axes, gone)
    return turner.turn(node.outputs[0], base, axes, like=found)


def _left(axes: Axes, gone: set[int]) -> Axes:
    """The order of what is left of a base without some of its axes."""
    kept = [axis for axis in axes if axis not in gone]
    return tuple(sorted(kept).index(axis) for axis in kept)


@rules("concatenate")
def _concatenate(turner: _Pass, node: Node) -> bool:
    [parts] = node.operands
    assert isinstance(parts, tuple)
    # Whichever comes first: that two parts change places is no change of their axes.
    turned = [found for x in parts if isinstance(x, Value) and (found := turner.turned.get(x)) is not None]
    lead = next((found for found in turned if found.plain), None)
    if lead is None or not _is_turned(turner, node) or any(
        not isinstance(x, Value) or len(x.shape) != len(lead.axes) for x in parts
    ):  # fmt: skip
        return False
    operands = tuple(_into(turner, x, lead.axes, len(lead.axes)) for x in parts if isinstance(x, Value))
    axis = lead.axes[node.attributes["axis"] % len(lead.axes)]
    return turner.turn(node.outputs[0], turner.emit(node, [operands], axis=axis), lead.axes, like=lead)


def _is_turned(turner: _Pass, node: Node) -> bool:
    return any(v in turner.turned for v in node.reads)


# Channels ------------------------------------------------------------------------------------------------------------
_CHANNELS = frozenset({
    "convolution", "transposed_convolution", "max_pool", "average_pool", "adaptive_average_pool", "adaptive_max_pool",
    "batch_norm", "batch_norm_training", "group_norm", "prelu", "resize",
})  # fmt: skip


@rules(*sorted(_CHANNELS))
def _channels(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    if found is None:
        return False
    rank = len(found.axes)
    channels = node.attributes.get("channel_axis", 1) % rank
    if channels == 1 and not _is_turned(turner, node):
        return False
    wanted = (0, channels, *(k for k in range(1, rank) if k != channels))
    axes = tuple(found.axes[k] for k in wanted)
    x = turner.carry_out(found.base, axes, tuple(found.base.shape[k] for k in axes))
    rest = [turner.in_order(v) if isinstance(v, Value) else v for v in node.operands[1:]]
    return turner.turn(node.outputs[0], turner.emit(node, [x, *rest], channel_axis=1), _inverse(wanted))


# Orders and shapes ---------------------------------------------------------------------------------------------------
@rules("permute")
def _permute(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    axes = node.attributes["axes"]
    if found is None:
        [source] = node.operands
        assert isinstance(source, Value)
        return turner.turn(node.outputs[0], turner.in_order(source), tuple(axes))
    return turner.turn(node.outputs[0], found.base, tuple(found.axes[k] for k in axes))


@rules("reshape")
def _reshape(turner: _Pass, node: Node) -> bool:
    [source] = node.operands
    found = turner.turned.get(source) if isinstance(source, Value) else None
    if found is None:
        return False
    turner.turned[node.outputs[0]] = replace(found, shape=node.outputs[0].shape)
    return True


@rules("layer_norm", "rms_norm")
def _normalized(turner: _Pass, node: Node) -> bool:
    found = turner.plain(node.operands[0])
    count = len(node.attributes["axes"])
    if found is None or not _is_turned(turner, node) or found.axes[-count:] != tuple(range(len(found.axes)))[-count:]:
        return False
    rest = [turner.in_order(v) if isinstance(v, Value) else v for v in node.operands[1:]]
    return turner.turn(node.outputs[0], turner.emit(node, [found.base, *rest]), found.axes, like=found)


@rules("linear")
def _linear(turner: _Pass, node: Node) -> bool:
    """Row by row: the rows are as in the array before; of a flattened image, the columns as well."""
    x, weight, *rest = node.operands
    found = turner.turned.get(x) if isinstance(x, Value) else None
    if found is None or not isinstance(weight, Value) or len(weight.shape) != 2:
        return False
    more = [turner.in_order(v) if isinstance(v, Value) else v for v in rest]
    base, weight = found.base, turner.in_order(weight)
    split = next(
        (j for j in range(len(found.axes)) if math.prod(base.shape[k] for k in found.axes[j:]) == found.shape[-1]), None
    )
    if split is None or math.prod(found.shape[:-1]) != math.prod(base.shape[k] for k in found.axes[:split]):
        return False
    rows, inner = found.axes[:split], found.axes[split:]
    if inner != tuple(sorted(inner)) and len(inner) > 1:
        apart = turner.carry_out(weight, (0, 1), (weight.shape[0], *(base.shape[k] for k in inner)))
        order = (0, *(1 + inner.index(k) for k in sorted(inner)))
        weight = turner.carry_out(apart, order, weight.shape)
    sizes = tuple(base.shape[k] for k in sorted(rows))
    given = turner.carry_out(base, (*sorted(rows), *sorted(inner)), (*sizes, found.shape[-1]))
    value = turner.emit(node, [given, weight, *more])
    axes = (*(sorted(rows).index(k) for k in rows), len(rows))
    return turner.turn(node.outputs[0], value, axes, node.outputs[0].shape)
