"""Recorded runs of torch in the words of the vocabulary.

The readers of :mod:`agnostic_torch.aten` write each operator of the dispatcher; those that only the dispatcher has are
here. What a reader wrote is computed in float64 beside the operator itself, once for each kind of call: where the
numbers differ, or nothing can be written, the operator stays as it is, and torch computes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from agnostic.errors import InvalidInput
from agnostic.program.builder import Builder, NodeOrigin
from agnostic.program.exact import widened
from agnostic.program.nodes import Array, Node, Value, map_values
from agnostic.program.passes import used
from agnostic.program.runs import LayerRun, Run
from agnostic.tables import filling
from agnostic_torch import aten
from agnostic_torch.aten import Call, Reader, Unreadable
from agnostic_torch.exact import exact

Raw = Callable[[Node, Sequence[Any]], tuple[Array, ...]]
OWN = "aten."
"""How operators begin that torch computes."""

READERS: dict[str, Reader] = {}
reads = filling(READERS)
"""Of operators that only the dispatcher has."""

TOLERANCE = 1e-9
"""How far what a reader wrote may be from the operator in float64, relative to its numbers."""


def lowered(run: Run, raw: Raw) -> Run:
    """The run in the words of the vocabulary.

    Args:
        run: with the operators of the dispatcher.
        raw: computes one of those in float64.
    """
    wanted = {value for call in run.calls for value in (*call.inputs, *call.outputs)} | run.drawn
    run = replace(run, program=used(run.program, wanted))  # what nobody reads need not be readable
    lowering = _Lowering(run, raw)
    for node in run.program.nodes:
        lowering.add(node)
    return lowering.run()


class _Arrays(dict[Value, Array]):
    """Arrays by value, each computed again where it was let go."""

    def __init__(self, computed: Callable[[Value], Mapping[Value, Array]]) -> None:
        super().__init__()
        self._computed = computed

    def __missing__(self, value: Value) -> Array:
        found = self._computed(value)
        self.update(found)
        return found[value]


@dataclass
class _Lowering:
    source: Run
    raw: Raw
    builder: Builder = field(default_factory=Builder)
    arrays: _Arrays = field(init=False)
    new: dict[Value, Value] = field(default_factory=dict)
    checked: dict[Any, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        program = self.source.program
        self.builder = Builder.of(program)
        self.arrays = _Arrays(self._computed)
        self.uses = Counter(v for node in program.nodes for v in node.reads)
        self.left = Counter(self.uses)
        self.uses.update(value for _, value in program.outputs)
        self.uses.update(value for call in self.source.calls for value in (*call.inputs, *call.outputs))

    def _computed(self, value: Value) -> Mapping[Value, Array]:
        """A value that was let go, or a leaf."""
        if value in self.source.arrays:
            return {value: widened(self.source.arrays[value])}
        node = self.builder.giver(value)
        assert node is not None
        given = [map_values(x, self.arrays.__getitem__) for x in node.operands]
        compute = self.raw if node.operator.startswith((OWN, "view.")) else exact
        return dict(zip(node.outputs, compute(node, given), strict=True))

    def add(self, node: Node) -> None:
        """Write a node, by a reader or as it is, compute it, and let go what no other node reads."""
        self._write(node)
        self.left.subtract(node.reads)
        for value in set(node.reads):
            if self.left[value] <= 0:
                self.arrays.pop(self.new.get(value, value), None)

    def _write(self, node: Node) -> None:
        self.builder.origin = NodeOrigin.of(node)
        operands = tuple(map_values(x, lambda v: self.new.get(v, v)) for x in node.operands)
        node = replace(node, operands=operands)
        start = len(self.builder.nodes)
        if any(v in self.source.drawn for v in node.outputs):
            self.builder.nodes.append(node)
            return
        results = self._read(node)
        if results is None:
            del self.builder.nodes[start:]
            self.builder.nodes.append(node)
            self.arrays.update(zip(node.outputs, self._raw(node), strict=True))
            return
        for value, result in zip(node.outputs, results, strict=False):
            if result is not None:
                self.new[value] = self._typed(result, value, start)

    def _read(self, node: Node) -> Sequence[Value | None] | None:
        """What a reader gives for a node, one a value; None where there is none, or where it is wrong."""
        key = node.operator, repr(sorted(node.attributes.items(), key=lambda x: x[0])), _pattern(node)
        if self.checked.get(key) is False:
            return None
        start = len(self.builder.nodes)
        try:
            found = _written(node, self.builder)
            for one in self.builder.nodes[start:]:
                given = [map_values(x, self.arrays.__getitem__) for x in one.operands]
                self.arrays.update(zip(one.outputs, exact(one, given), strict=True))
        except (Unreadable, InvalidInput, AssertionError, KeyError):
            self.checked[key] = False
            return None
        results: list[Value | None] = [*found, *[None] * (len(node.outputs) - len(found))]
        if any(self.uses[v] and not isinstance(x, Value) for v, x in zip(node.outputs, results, strict=True)):
            self.checked[key] = False
            return None
        if key not in self.checked:
            self.checked[key] = self._right(node, results)
        return results if self.checked[key] else None

    def _right(self, node: Node, results: Sequence[Value | None]) -> bool:
        truth = self._raw(node)
        return all(
            x is None or (x.shape == wanted.shape and _near(wanted, self.arrays[x]))
            for x, wanted in zip(results, truth, strict=True)
        )

    def _raw(self, node: Node) -> tuple[Array, ...]:
        return self.raw(node, [map_values(x, self.arrays.__getitem__) for x in node.operands])

    def _typed(self, result: Value, like: Value, start: int) -> Value:
        """The value with the type that torch gives it, where a node of this call gives it."""
        fresh = any(result in node.outputs for node in self.builder.nodes[start:])
        if not fresh or result.dtype == like.dtype:
            return result
        array = self.arrays[result]
        changed = self.builder.retype(result, like.dtype)
        self.arrays[changed] = array
        return changed

    def run(self) -> Run:
        """All of it."""
        program = self.source.program
        outputs = tuple((path, self.new.get(value, value)) for path, value in program.outputs)
        kept = {leaf.value for leaf in self.builder.leaves} | self.source.drawn
        constants = {leaf.value: leaf.array for leaf in self.builder.leaves if leaf.array is not None}
        arrays = {v: x for v, x in self.source.arrays.items() if v in kept} | constants
        done = replace(program, leaves=tuple(self.builder.leaves), nodes=tuple(self.builder.nodes), outputs=outputs)
        return replace(self.source, program=done, arrays=arrays, calls=tuple(map(self._renamed, self.source.calls)))

    def _renamed(self, call: LayerRun) -> LayerRun:
        inputs, outputs = (tuple(self.new.get(v, v) for v in values) for values in (call.inputs, call.outputs))
        return replace(call, inputs=inputs, outputs=outputs)


def _pattern(node: Node) -> tuple[Any, ...]:
    """Which operands there are, and of how many axes."""
    return tuple(len(x.shape) if isinstance(x, Value) else len(x) if isinstance(x, tuple) else x for x in node.operands)


def _near(x: Array, y: Array) -> bool:
    if x.dtype.kind not in "fc":
        return bool(np.array_equal(x, y))
    scale = float(np.abs(np.where(np.isfinite(x), x, 0)).max(initial=0.0))
    return bool(np.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE * scale, equal_nan=True))


def _written(node: Node, builder: Builder) -> Sequence[Any]:
    """What a node's reader writes: the values that it gives, in order."""
    call = _call(node, builder)
    name = str(call.node.target)
    reader = READERS.get(name) or aten.READERS.get(name) or aten.READERS.get(name.strip("_"))
    if reader is None:
        raise Unreadable("has no translation yet")
    found = reader(call)
    return tuple(found) if isinstance(found, tuple | list) else (found,)


def _call(node: Node, builder: Builder) -> Call:
    if not node.operator.startswith(OWN):
        raise Unreadable("is our own")
    _, name, overload = node.operator.split(".")
    packet = getattr(torch.ops.aten, name)
    tensors = [torch.empty(v.shape, dtype=getattr(torch, v.dtype), device="meta") for v in node.outputs]
    name = name.rstrip("_") if name.endswith("_") and not name.startswith("__") else name
    shown: Any = SimpleNamespace(
        target=name, args=(), users=(), meta={"val": tensors[0] if len(tensors) == 1 else tensors}
    )
    call = Call(shown, builder, lambda n: n)
    rest = iter(node.operands)
    for argument in getattr(packet, overload)._schema.arguments:
        if "Tensor" in str(argument.type):
            call.given[argument.name] = next(rest)
        elif argument.name != "generator":
            call.given[argument.name] = node.attributes.get(argument.name, argument.default_value)
    if name in ("unbind", "split", "split_with_sizes", "chunk", "unsafe_split"):
        shown.meta["val"] = tensors
    return call


# Operators that only the dispatcher has ------------------------------------------------------------------------------
@reads("convolution")
def _convolution(c: Call) -> Value:
    rank = len(c["weight"].shape) - 2
    if len(c["input"].shape) != rank + 2:
        raise Unreadable("has no batch")
    options = {name: tuple(map(int, c[name])) for name in ("stride", "padding", "dilation", "output_padding")}
    options = {name: x if len(x) == rank else x * rank for name, x in options.items()}
    pairs = tuple((p, p) for p in options["padding"])
    shared = {"stride": options["stride"], "dilation": options["dilation"], "groups": int(c["groups"])}
    operands = c["input"], c["weight"], c["bias"]
    if c["transposed"]:
        return c.emit("transposed_convolution", *operands, crop=pairs, extra=options["output_padding"], **shared)
    return c.emit("convolution", *operands, padding=pairs, **shared)


@reads("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
def _batch_norm(c: Call) -> Value:
    epsilon = float(c.get("eps", c.get("epsilon")))
    if c.get("training", False):
        return c.emit("batch_norm_training", c["input"], c["weight"], c["bias"], epsilon=epsilon)
    operands = c["input"], c["running_mean"], c["running_var"], c["weight"], c["bias"]
    return c.emit("batch_norm", *operands, epsilon=epsilon)


@reads("native_layer_norm")
def _layer_norm(c: Call) -> Value:
    axes = tuple(range(-len(c["normalized_shape"]), 0))
    return c.emit("layer_norm", c["input"], c["weight"], c["bias"], axes=axes, epsilon=float(c["eps"]))


@reads("native_group_norm")
def _group_norm(c: Call) -> Value:
    return c.emit(
        "group_norm", c["input"], c["weight"], c["bias"], groups=int(c["group"]), epsilon=float(c["eps"])
    )  # fmt: skip


@reads("_safe_softmax")
def _safe_softmax(c: Call) -> Value:
    axis = int(c["dim"]) % len(c.x.shape)
    return c.emit("softmax", c.x, axis=axis)


@reads("lift_fresh", "_reshape_alias", "_conj")
def _identity(c: Call) -> Value:
    return c.emit("identity", c.x) if c.x.shape == c.shape else c.emit("reshape", c.x, shape=c.shape)


@reads("hardtanh")
def _hard_tanh(c: Call) -> Value:
    if (c["min_val"], c["max_val"]) == (0, 6):
        return c.emit("activation", c.x, function="relu6")
    return c.emit("activation", c.x, function="hard_tanh", low=c["min_val"], high=c["max_val"])
