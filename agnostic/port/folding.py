"""Fold weights that are computed from weights: weight norm, spectral norm, weight standardization, concatenated biases.

A layer of another framework takes its kernel directly. So a kernel, bias or scale that depends on parameters alone is
computed once and becomes a parameter. The model computes the same function; training continues on the folded weights.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from agnostic.program.nodes import Array, Leaf, Node, Program, Value, map_values, substituted
from agnostic.program.passes import used
from agnostic.program.vocabulary import evaluate, get, is_computable

SLOTS: Mapping[str, Mapping[int, str]] = {
    "convolution": {1: "weight", 2: "bias"},
    "transposed_convolution": {1: "weight", 2: "bias"},
    "linear": {1: "weight", 2: "bias"},
    "batch_norm": {1: "running_mean", 2: "running_var", 3: "weight", 4: "bias"},
    "layer_norm": {1: "weight", 2: "bias"},
    "rms_norm": {1: "weight"},
    "group_norm": {1: "weight", 2: "bias"},
    "prelu": {1: "weight"},
    "embedding": {0: "weight"},
    "lstm": {3: "weight_ih", 4: "weight_hh", 5: "bias_ih", 6: "bias_hh", 7: "weight_hr"},
    "gru": {2: "weight_ih", 3: "weight_hh", 4: "bias_ih", 5: "bias_hh"},
    "rnn": {2: "weight_ih", 3: "weight_hh", 4: "bias_ih", 5: "bias_hh"},
}
"""By operator, which operands are weights, and their usual names."""


@dataclass(frozen=True)
class Folded:
    """A program without computed weights.

    Attributes:
        program: the program.
        sources: by the names of the new parameters, what each is computed as.
        givers: the nodes that compute it.
        known: arrays of the weights.
    """

    program: Program
    sources: Mapping[str, Value]
    givers: Mapping[Value, Node]
    known: Mapping[Value, Array]

    @functools.cached_property
    def arrays(self) -> Mapping[str, Array]:
        """The new parameters' numbers by name, in float64."""
        return {name: _computed(value, self.givers, self.known) for name, value in self.sources.items()}


def folded(program: Program, weights: Mapping[str, Array]) -> Folded:
    """Replace weights that are computed from parameters by new parameters.

    Args:
        program: simplified.
        weights: the model's, by name.
    """
    givers = _of_weights_alone(program)
    names = {leaf.name for leaf in program.leaves}
    known = {
        leaf.value: leaf.array if leaf.array is not None else weights[leaf.name]
        for leaf in program.leaves
        if leaf.role != "input"
    }
    equal = _first_of_equals(givers)
    new: dict[Value, Leaf] = {}
    sources: dict[str, Value] = {}
    nodes = []
    for node in program.nodes:
        instead: dict[Value, Value] = {}
        for place, word in SLOTS.get(node.operator, {}).items():
            value = node.operands[place] if place < len(node.operands) else None
            if not isinstance(value, Value) or value not in givers or node in givers.values():
                continue
            if _is_moved(value, givers):
                continue
            value = equal[value]
            if value not in new:
                name = f"{node.module}.{word}" if node.module else word
                while name in names:
                    name += "_"
                names.add(name)
                sources[name] = value
                new[value] = Leaf(name, "parameter", Value(-1 - len(new), value.shape, value.dtype))
            instead[node.operands[place]] = new[value].value  # type: ignore[index]
        nodes.append(substituted(node, instead))
    if not new:
        return Folded(program, {}, {}, {})
    leaves = [*program.leaves, *new.values()]
    order = {"input": 0, "parameter": 1, "buffer": 2, "constant": 3}
    leaves.sort(key=lambda leaf: order[leaf.role])
    shorter = used(replace(program, nodes=tuple(nodes), leaves=tuple(leaves)))
    return Folded(shorter, sources, givers, known)


def _is_moved(value: Value, givers: Mapping[Value, Node]) -> bool:
    """Whether a value is one weight with its numbers reordered, which the layout handles."""
    while value in givers:
        node = givers[value]
        source = node.operands[0]
        if node.operator not in ("permute", "reshape", "identity") or not isinstance(source, Value):
            return False
        value = source
    return True


def _of_weights_alone(program: Program) -> dict[Value, Node]:
    """The nodes that depend on parameters, buffers and constants alone, by their results."""
    fixed = {leaf.value for leaf in program.leaves if leaf.role != "input"}
    found: dict[Value, Node] = {}
    for node in program.nodes:
        values = list(node.reads)
        fit = is_computable(node) and not get(node.operator).random
        if values and fit and all(v in fixed or v in found for v in values):
            found |= dict.fromkeys(node.outputs, node)
    return found


def _first_of_equals(givers: Mapping[Value, Node]) -> dict[Value, Value]:
    """For each of these results the first that is computed alike: a layer computes its weights at each of its calls."""
    first: dict[Value, Value] = {}

    def representative(value: Value) -> Value:
        return first.get(value, value)

    known: dict[object, tuple[Value, ...]] = {}
    for node in {id(node): node for node in givers.values()}.values():
        operands = [map_values(operand, representative) for operand in node.operands]
        key = repr((node.operator, operands, sorted(node.attributes.items(), key=str)))
        first |= zip(node.outputs, known.setdefault(key, node.outputs), strict=True)
    return first


def _computed(value: Value, givers: Mapping[Value, Node], known: Mapping[Value, Array]) -> Array:
    """Compute a value from weights alone, in float64."""
    done: dict[Value, Array] = {}

    def of(wanted: Value) -> Array:
        if wanted in known:
            array = np.asarray(known[wanted])
            return array.astype(np.float64) if array.dtype.kind == "f" else array
        if wanted not in done:
            node = givers[wanted]
            done.update(zip(node.outputs, evaluate(node, of), strict=True))
        return done[wanted]

    return np.asarray(of(value))
