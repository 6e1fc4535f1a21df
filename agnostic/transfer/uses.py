"""Where a program uses weights: which operators, with which arrays, in a layout that all programs have in common.

A use is one product, norm, table or recurrence, however its framework writes it: an addition after a product is its
bias, a vector that multiplies and one that adds are one norm, and a product whose features are cut in pieces, such as
the queries, keys and values of an attention, is one use for each piece.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agnostic.axes import Dimension, Dimensions
from agnostic.program.nodes import Array, Node, Program, Value, givers_of, readers_of
from agnostic.program.vocabulary import get
from agnostic.transfer.cells import gathered
from agnostic.transfer.forms import LEARNED
from agnostic.transfer.frozen import folded_norm
from agnostic.transfer.orders import dimensions
from agnostic.transfer.use import Use, after
from agnostic.transfer.weights import ProgramWeights, WeightPart

_STEPS = {"add": "shift", "multiply": "scale", "subtract": "minus", "divide": "over"}


@dataclass(frozen=True, eq=False)
class Uses:
    """All uses of a program.

    Attributes:
        program, weights: what was read.
        uses: in the order in which they run.
        owners: the uses that a node belongs to, by the node's place in the program.
        pieces: the use that gives a value, where it is a part of a product's features.
        cuts: the products that were cut in pieces, and these.
    """

    program: Program
    weights: ProgramWeights
    uses: list[Use]
    owners: Mapping[int, list[Use]]
    pieces: Mapping[Value, Use]
    cuts: Sequence[tuple[Use, Sequence[Use]]] = ()

    def replaced(self, instead: Mapping[int, Use | None]) -> Uses:
        """With others for some of the uses, by their identity; None: without that one."""

        def kept(uses: Sequence[Use]) -> list[Use]:
            return list({id(x): x for use in uses if (x := instead.get(id(use), use)) is not None}.values())

        if not instead:
            return self
        pieces = {value: use for value, use in self.pieces.items() if id(use) not in instead}
        owners = {place: kept(owned) for place, owned in self.owners.items()}
        return replace(self, uses=kept(self.uses), owners=owners, pieces=pieces)


def is_fixed(use: Use, weights: ProgramWeights) -> bool:
    """Whether a use is of buffers alone that are no statistics: a mask, anchors, a table of positions."""
    return all(name in weights.buffers for name in use.names(weights)) and not {"mean", "variance"} & use.parts.keys()


def uses_of(program: Program, arrays: Mapping[str, Array]) -> Uses:
    """Find the uses.

    Args:
        program: as :func:`agnostic.program.passes.simplified` leaves it.
        arrays: its parameters and buffers by name.
    """
    search = _UseSearch(program, ProgramWeights(program, arrays))
    for place, node in enumerate(program.nodes):
        search.look(place, node)
    search.add_biases()
    search.join_steps()
    search.cut_products()
    found = _plain(gathered(search.found, search.weights), search.weights)
    kept = {id(use) for use in found}
    pieces = {value: use for value, use in search.pieces.items() if id(use) in kept}
    return Uses(program, search.weights, found, _owners(found, search.places), pieces, search.cuts)


def _owners(uses: Sequence[Use], places: Mapping[int, int]) -> dict[int, list[Use]]:
    owners: dict[int, list[Use]] = {}
    for use in uses:
        for node in use.nodes:
            owners.setdefault(places[id(node)], []).append(use)
    return owners


def _plain(uses: list[Use], weights: ProgramWeights) -> list[Use]:
    """Without those of numbers that are computed from what other uses hold as it is, such as a product with zeros."""
    held = {
        name
        for use in uses
        if all(weights.places(part) is not None for part in use.parts.values())
        for name in use.names(weights)
    }
    computed = [use for use in uses if any(weights.places(part) is None for part in use.parts.values())]
    gone = {id(use) for use in computed if set(use.names(weights)) <= held}
    return [use for use in uses if id(use) not in gone]


class _UseSearch:
    """What was found so far."""

    def __init__(self, program: Program, weights: ProgramWeights) -> None:
        self.program, self.weights = program, weights
        self.known = dimensions(program)
        self.places = {id(node): place for place, node in enumerate(program.nodes)}
        self.users = readers_of(program.nodes)
        self.givers = givers_of(program.nodes)
        self.returned = {value for _, value in program.outputs}
        self.found: list[Use] = []
        self.pieces: dict[Value, Use] = {}
        self.cuts: list[tuple[Use, list[Use]]] = []

    def look(self, place: int, node: Node) -> None:
        """Add the use that a node is, if it is one."""
        given = list(node.reads)
        data = tuple(v for v in given if self.weights.names(v) is None)
        if (data or LEARNED in node.attributes) and any(self.weights.names(v) for v in given):
            make = _MAKERS.get(node.operator, _other)
            use = make(self, node) or _other(self, node)
            use.data = data
            self.found.append(use)

    def static(self, node: Node, place: int) -> Value | None:
        """An operand that is computed from weights, or is a constant."""
        operand = node.operands[place] if place < len(node.operands) else None
        return operand if isinstance(operand, Value) and self.weights.names(operand) is not None else None

    def giver(self, value: Any) -> Node | None:
        """The node that gives a value."""
        return self.givers.get(value) if isinstance(value, Value) else None

    def dims(self, value: Any) -> Dimensions:
        """What the dimensions of a value stand for."""
        return self.known.get(value, ()) if isinstance(value, Value) else ()

    def after(self, value: Value) -> Node | None:
        """See :func:`after`."""
        return after(self.users, self.returned, value)

    def add_biases(self) -> None:
        """A vector that is added right after a product without a bias is its bias."""
        steps = {id(use.nodes[0]): use for use in self.found if use.kind == "step"}
        for use in [u for u in self.found if u.kind in ("product", "convolution", "transposed")]:
            node = self.after(use.outputs[0])
            step = steps.get(id(node)) if node is not None else None
            if step is None or "bias" in use.parts or step.settings["role"] != "shift":
                continue
            if step.dims == use.dims[:1]:
                use.parts["bias"] = step.parts["shift"]
                use.nodes.append(step.nodes[0])
                use.outputs = step.outputs
                self.found.remove(step)

    def join_steps(self) -> None:
        """Vectors of one size that multiply and add one after the other are one norm."""
        steps = {id(use.nodes[0]): use for use in self.found if use.kind == "step"}
        for use in list(self.found):
            if use.kind != "step" or use not in self.found:
                continue
            chain = [use]
            while (more := self._next_step(chain, steps)) is not None:
                chain.append(more)
            self.found[self.found.index(use)] = _joined(chain, self.weights)
            for more in chain[1:]:
                self.found.remove(more)

    def _next_step(self, chain: Sequence[Use], steps: Mapping[int, Use]) -> Use | None:
        """The step of the same size that follows; a scale may be followed by a factor for each row first."""
        node = self.after(chain[-1].outputs[0])
        scales = all(step.settings["role"] in ("scale", "over") for step in chain)
        if node is not None and id(node) not in steps and scales and node.operator in ("multiply", "divide"):
            others = [v for v in node.reads if v != chain[-1].outputs[0]]
            if len(others) == 1 and others[0].shape[-1:] == (1,) and node.operands[-1] == others[0]:
                node = self.after(node.outputs[0])
        found = None if node is None else steps.get(id(node))
        if found is None or found.dims != chain[0].dims:
            return None
        apart = found.columns and chain[0].columns and found.columns != chain[0].columns
        return None if apart else found  # what is spread over the rows and what is spread over the columns is no norm

    def cut_products(self) -> None:
        """A product whose features are used in pieces is one for each piece."""
        for use in [u for u in self.found if u.kind in ("product", "convolution") and u.nodes[0].operator != "einsum"]:
            cut = self._pieces(use)
            if not cut:
                continue
            place = self.found.index(use)
            made = []
            for features, values in cut.items():
                rows = np.array(features)
                parts = {
                    role: part.then(functools.partial(np.take, indices=rows, axis=0))
                    for role, part in use.parts.items()
                }
                piece = replace(use, dims=(len(rows), *use.dims[1:]), parts=parts, columns=(), outputs=tuple(values))
                self.pieces |= dict.fromkeys(values, piece)
                made.append(piece)
            self.found[place : place + 1] = made
            self.cuts.append((use, made))

    def _pieces(self, use: Use) -> dict[tuple[int, ...], list[Value]]:
        """The values that are pieces of a product's features, by the features; empty where it is used as a whole."""
        value = use.nodes[0].outputs[0]
        first = use.nodes[0]
        axis = first.attributes.get("channel_axis", 1) if first.operator == "convolution" else -1
        total, own = value.shape[axis], {id(node) for node in use.nodes[1:]}
        if not self._is_cut(value, own):
            return {}
        along = [1] * len(value.shape)
        along[axis] = total
        todo = [(value, np.broadcast_to(np.arange(total).reshape(along), value.shape))]
        found: dict[tuple[int, ...], list[Value]] = {}
        while todo:
            value, features = todo.pop()
            left = tuple(np.unique(features).tolist())
            if len(left) < total:
                found.setdefault(left, []).append(value)
                continue
            users = self.users.get(value, [])
            if value in self.returned or not users:
                return {}
            for node in users:
                if id(node) in own:
                    todo.append((node.outputs[0], features.reshape(node.outputs[0].shape)))
                elif node.operator in _CUTS and node.operands[0] == value:
                    attributes = {} if node.operator in ("cast", "identity", "dropout") else node.attributes
                    moved = get(node.operator).evaluate(features, **attributes) if attributes else features
                    todo.append((node.outputs[0], moved))
                else:
                    return {}
        together = sorted(n for features in found for n in features)
        return dict(sorted(found.items())) if together == list(range(total)) else {}

    def _is_cut(self, value: Value, own: set[int]) -> bool:
        """Whether the moves after a value take parts out of it."""
        todo = [value]
        while todo:
            for node in self.users.get(todo.pop(), []):
                if node.operator in ("slice", "select"):
                    return True
                if node.operator in _CUTS or id(node) in own:
                    todo.append(node.outputs[0])
        return False


_CUTS = frozenset({"reshape", "permute", "cast", "identity", "dropout", "slice", "select"})


def _joined(chain: Sequence[Use], weights: ProgramWeights) -> Use:
    """Steps as one norm: by its roles, where they are a scale and a shift, or a batch norm with its statistics."""
    first, last = chain[0], chain[-1]
    roles = [step.settings["role"] for step in chain]
    parts = {role: next(iter(step.parts.values())) for role, step in zip(roles, chain, strict=True)}
    settings: dict[str, Any] = {}
    plain = all(weights.places(part) is not None for part in parts.values())
    if len(chain) > 1 and (not plain or roles != ["scale", "shift"]):
        folded = folded_norm([(r, next(iter(s.parts.values()))) for r, s in zip(roles, chain, strict=True)], weights)
        if folded is not None:
            parts, settings = folded
    nodes = [node for step in chain for node in step.nodes]
    return Use("norm", first.dims, parts, nodes, first.data, last.outputs, first.rows, last.columns, settings)


# Operators -----------------------------------------------------------------------------------------------------------
def _linear(search: _UseSearch, node: Node) -> Use | None:
    kernel = search.static(node, 1)
    if kernel is None:
        return None
    matrix = WeightPart(kernel, lambda x: x.reshape(-1, x.shape[-1]))
    parts = {"kernel": matrix}
    if (bias := search.static(node, 2)) is not None:
        parts["bias"] = WeightPart(bias, _flat)
    size = (math.prod(kernel.shape[:-1]), kernel.shape[-1])
    x, y = search.dims(node.operands[0]), search.dims(node.outputs[0])
    return Use("product", size, parts, [node], (), node.outputs, x[-1:], y[-1:])


def _matmul(search: _UseSearch, node: Node) -> Use | None:
    for place, other in ((1, 0), (0, 1)):
        kernel = search.static(node, place)
        if kernel is None or len(kernel.shape) != 2:
            continue
        part = WeightPart(kernel, lambda x: x.T) if place else WeightPart(kernel)
        size = kernel.shape[::-1] if place else kernel.shape
        axis = -1 if place else -2
        x, y = search.dims(node.operands[other]), search.dims(node.outputs[0])
        rows, columns = x[axis : axis + 1 or None], y[axis : axis + 1 or None]
        return Use("product", size, {"kernel": part}, [node], (), node.outputs, rows, columns)
    return None


def _einsum(search: _UseSearch, node: Node) -> Use | None:
    operands = node.operands[0]
    assert isinstance(operands, tuple)
    statics = [search.weights.names(x) if isinstance(x, Value) else None for x in operands]
    if len(operands) != 2 or sum(x is not None for x in statics) != 1:
        return None
    place = next(k for k, names in enumerate(statics) if names is not None)
    left, _, right = node.attributes["equation"].partition("->")
    terms = left.split(",")
    kernel, x = terms[place], terms[1 - place]
    into = [c for c in x if c in kernel and c not in right]
    out = [c for c in right if c in kernel and c not in x]
    if len(into) + len(out) != len(kernel):
        return None
    value, data = operands[place], operands[1 - place]
    assert isinstance(value, Value)
    rows = math.prod(value.shape[kernel.index(c)] for c in out)
    moved = [kernel.index(c) for c in (*out, *into)]
    part = WeightPart(value, lambda k: k.transpose(moved).reshape(rows, -1))
    size = (rows, math.prod(value.shape) // rows)
    xs, ys = search.dims(data), search.dims(node.outputs[0])
    inside = tuple(xs[x.index(c)] for c in into) if xs else ()
    outside = tuple(ys[right.index(c)] for c in out) if ys else ()
    return Use("product", size, {"kernel": part}, [node], (), node.outputs, inside, outside)


def _convolution(search: _UseSearch, node: Node) -> Use | None:
    kernel = search.static(node, 1)
    if kernel is None:
        return None
    axis = node.attributes.get("channel_axis", 1)
    alone = node.attributes.get("groups", 1) == 1 and math.prod(kernel.shape[2:]) == 1
    kind = "product" if alone else "convolution"
    parts = {"kernel": WeightPart(kernel, _matrix if alone else lambda x: x)}
    if (bias := search.static(node, 2)) is not None:
        parts["bias"] = WeightPart(bias, _flat)
    x, y = search.dims(node.operands[0]), search.dims(node.outputs[0])
    size = kernel.shape[:2] if alone else kernel.shape
    settings: dict[str, Any] = {k: node.attributes[k] for k in ("stride", "dilation")}
    settings["places"] = [d for k, d in enumerate(x) if k not in (0, axis % len(x))]
    return Use(kind, size, parts, [node], (), node.outputs, x[axis : axis + 1 or None], y[axis : axis + 1 or None],
               settings)  # fmt: skip


def _transposed(search: _UseSearch, node: Node) -> Use | None:
    kernel = search.static(node, 1)
    if kernel is None:
        return None
    groups = node.attributes.get("groups", 1)
    parts = {"kernel": WeightPart(kernel, lambda x: blocks(x, groups))}
    if (bias := search.static(node, 2)) is not None:
        parts["bias"] = WeightPart(bias, _flat)
    size = (kernel.shape[1] * groups, kernel.shape[0], *kernel.shape[2:])
    return Use("transposed", size, parts, [node], (), node.outputs, settings={"stride": node.attributes["stride"]})


def blocks(x: Array, groups: int) -> Array:
    """The kernel (O, I, *size) of a transposed convolution in groups as one without; where none is, -1 or zero."""
    inputs, outputs = x.shape[0], x.shape[1] * groups
    nothing = -1 if x.dtype.kind == "i" else 0
    found = np.full((outputs, inputs, *x.shape[2:]), nothing, x.dtype)
    for g in range(groups):
        rows = slice(g * (inputs // groups), (g + 1) * (inputs // groups))
        columns = slice(g * x.shape[1], (g + 1) * x.shape[1])
        found[columns, rows] = np.moveaxis(x[rows], 0, 1)
    return found


_NORMS: Mapping[str, tuple[str, ...]] = {
    "batch_norm": ("", "mean", "variance", "scale", "shift"), "layer_norm": ("", "scale", "shift"),
    "rms_norm": ("", "scale"), "group_norm": ("", "scale", "shift"), "batch_norm_training": ("", "scale", "shift"),
    "prelu": ("", "slope"),
}  # fmt: skip


def _norm(search: _UseSearch, node: Node) -> Use | None:
    named = {role: v for k, role in enumerate(_NORMS[node.operator]) if k and (v := search.static(node, k)) is not None}
    x = search.dims(node.operands[0])
    rank = len(node.outputs[0].shape)
    if "axes" in node.attributes:
        columns = tuple(x[axis] for axis in node.attributes["axes"]) if x else ()
    else:
        axis = node.attributes.get("channel_axis", 1) % rank
        columns = x[axis : axis + 1]
    size = max(math.prod(v.shape) for v in named.values())
    if node.operator == "prelu":
        columns = columns if len(next(iter(named.values())).shape) < 2 else _beside(next(iter(named.values())), x)
    parts = {role: WeightPart(value, _flat) for role, value in named.items()}
    kind = "slope" if node.operator == "prelu" else "norm"
    settings: dict[str, Any] = {k: node.attributes[k] for k in ("epsilon",) if k in node.attributes}
    if kind == "slope":
        settings = {"size": size, "channels": node.outputs[0].shape[node.attributes.get("channel_axis", 1)]}
    return Use(kind, (size,) if kind == "norm" else (), parts, [node], (), node.outputs, columns, columns, settings)


def _step(search: _UseSearch, node: Node) -> Use | None:
    places = [k for k in range(2) if search.static(node, k) is not None]
    if len(places) != 1 or (places[0] == 0 and node.operator in ("subtract", "divide")):
        return None
    value = search.static(node, places[0])
    assert value is not None
    if (whole := _slopes(search, node, places[0])) is not None:
        return whole
    role = _STEPS[node.operator]
    columns = _beside(value, search.dims(node.outputs[0]))
    size = math.prod(value.shape)
    return Use(
        "step", (size,), {role: WeightPart(value, _flat)}, [node], (), node.outputs, columns, columns, {"role": role}
    )


def _slopes(search: _UseSearch, node: Node, place: int) -> Use | None:
    """A PReLU with a slope for each number: relu(x) + (-slope) relu(-x)."""
    other = node.operands[1 - place]
    negative, positive = (search.giver(x) for x in (node.operands[place], other))
    if node.operator != "multiply" or negative is None or positive is None or positive.operator != "activation":
        return None
    turned = search.giver(positive.operands[0])
    if any(n is None or n.attributes.get("function") != "negative" for n in (negative, turned)):
        return None
    assert turned is not None
    x, slope = turned.operands[0], negative.operands[0]
    users = search.users.get(node.outputs[0], [])
    direct = [n for n in search.users.get(x, []) if n.operator == "activation"] if isinstance(x, Value) else []
    if len(users) != 1 or users[0].operator != "add" or not direct or not isinstance(slope, Value):
        return None
    columns = _beside(slope, search.dims(node.outputs[0]))
    settings = {"size": math.prod(slope.shape), "channels": slope.shape[-1]}
    nodes = [direct[0], turned, positive, node, users[0]]
    return Use(
        "slope", (), {"slope": WeightPart(slope, _flat)}, nodes, (), users[0].outputs, columns, columns, settings
    )


def _beside(value: Value, dims: Dimensions) -> tuple[Dimension, ...]:
    """What the dimensions of a weight stand for that is spread over an array."""
    if len(value.shape) > len(dims):
        return ()
    return tuple(d for n, d in zip(value.shape, dims[len(dims) - len(value.shape) :], strict=True) if n > 1)


def _table(search: _UseSearch, node: Node) -> Use | None:
    table = search.static(node, 0)
    places = node.operands[1]
    if isinstance(places, tuple) and (len(places) != 1 or not isinstance(places[0], Value)):
        return None  # indexed along other axes than the first
    if table is None or len(table.shape) != 2 or node.attributes.get("axis", 0) != 0:
        return None
    return Use("table", table.shape, {"table": WeightPart(table)}, [node], (), node.outputs)


def _recurrent(search: _UseSearch, node: Node) -> Use | None:
    start = 3 if node.operator == "lstm" else 2
    names = ("kernel", "recurrent", "bias", "second_bias", "projection")
    named = {n: v for k, n in enumerate(names, start) if (v := search.static(node, k)) is not None}
    x = search.dims(node.operands[0])
    parts = {name: WeightPart(value) for name, value in named.items()}
    size = (*named["kernel"].shape, *named["recurrent"].shape)
    settings = {**get(node.operator).defaults, **node.attributes}
    kept = {k: settings.get(k) for k in ("reset_after", "function", "reverse")}
    return Use(node.operator, size, parts, [node], (), node.outputs, x[-1:], (), kept)


def _other(search: _UseSearch, node: Node) -> Use:
    """Any other operator, by the places of its operands."""
    given = list(node.reads)
    parts = {str(k): WeightPart(v, _flat) for k, v in enumerate(given) if search.weights.names(v)}
    sizes = tuple(sorted(math.prod(part.value.shape) for part in parts.values() if part.value is not None))
    columns: tuple[Dimension, ...] = ()
    if len(parts) == 1:
        (part,) = parts.values()
        assert part.value is not None
        columns = _beside(part.value, search.dims(node.outputs[0]))
    if len(parts) == 1:
        parts = {"0": next(iter(parts.values()))}
    return Use(node.operator, sizes, parts, [node], (), node.outputs, (), columns)


def _flat(x: Array) -> Array:
    return x.reshape(-1)


def _matrix(x: Array) -> Array:
    return x.reshape(x.shape[:2])


_MAKERS: Mapping[str, Callable[[_UseSearch, Node], Use | None]] = {
    "linear": _linear, "matmul": _matmul, "einsum": _einsum, "convolution": _convolution,
    "transposed_convolution": _transposed,
    "embedding": _table, "take": _table, "index": _table,
    **dict.fromkeys(_NORMS, _norm), **dict.fromkeys(_STEPS, _step), **dict.fromkeys(("lstm", "gru", "rnn"), _recurrent),
}  # fmt: skip
