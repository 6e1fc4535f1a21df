"""From a laid-out program to class bodies: the neutral half of writing source. See :mod:`agnostic.port.dialect`."""

from __future__ import annotations

import functools
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from agnostic.port.blocks import Region, given_alike, interface, regions
from agnostic.port.code import Apply, Code, Dim, Listed, Name, Ref, identifier, refs, replaced
from agnostic.port.dialect import Dialect, LayerNode, Unwritable
from agnostic.port.functions import Functions
from agnostic.port.loops import HELPER, Unlooped
from agnostic.port.names import CONSTANT, beside, own
from agnostic.port.sizes import Differ, Spelled, spelled, windows
from agnostic.port.variables import Variables, variables
from agnostic.program.nodes import Leaf, Node, Operand, Program, Value, readers_of
from agnostic.program.operators.loops import LOOPED

LENGTH = "length:"
"""The type of a value that is no array but a length, and what it is called."""


@dataclass
class Member:
    """A member of a block: a layer, a nested block, or a weight.

    Attributes:
        name: of the attribute.
        layer: its name in the model, relative to the block.
        constructor: for a layer, the code that makes it.
        body: for a nested block, its body.
        leaf: for a weight, the program's leaf.
        weights: for a layer: (name, leaf, steps) of each of its variables.
        output: for a layer, its result.
    """

    name: str
    layer: str
    constructor: Code = None
    body: Body | None = None
    leaf: Leaf | None = None
    weights: tuple[Any, ...] = ()
    output: Value | None = None


@dataclass
class Statement:
    """Values that get a name, and the code that gives them.

    Attributes:
        targets: the values.
        code: gives them.
        moved: the operators for which axes are moved here.
    """

    targets: tuple[Value, ...]
    code: Code
    moved: tuple[str, ...] = ()


@dataclass
class Body:
    """A block: its members and statements.

    Attributes:
        path: of the layer.
        kind: its class name in the source.
        inputs: the inputs of its call.
        outputs: the values that it returns.
        members: in the order of their first use.
        statements: in order.
        is_chain: whether it only calls its members one after the other.
        repeats: whether a loop calls it.
    """

    path: str
    kind: str
    inputs: list[Value]
    outputs: list[Value]
    members: list[Member] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    is_chain: bool = False
    repeats: bool = False

    @property
    def bodies(self) -> Iterator[Body]:
        """The nested bodies, innermost first, then this one."""
        for member in self.members:
            if member.body is not None:
                yield from member.body.bodies
        yield self


class Blocks:
    """Writes the bodies of a program's blocks.

    Args:
        program: laid out for the dialect.
        dialect: of the target.
        functions: collects the functions for operators that the dialect lacks.
        moved: the operator that needs its axes in another order, by the id of the node that moves them.
    """

    def __init__(
        self, program: Program, dialect: Dialect, functions: Functions, moved: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        self.program = program
        self.dialect = dialect
        self.functions = functions
        self.moved = moved
        self.wanted = {value for _, value in program.outputs}
        self.leaves = {leaf.value: leaf for leaf in program.leaves}
        self.readers = readers_of(program.nodes)
        candidates = self._candidates()
        self.tree = regions(program, {w.value for nodes in candidates.values() for w in nodes[0][1].weights})
        self.alike = given_alike(self.tree, self.readers, self.wanted)
        self.place: dict[int, str] = {}
        for region in self.tree.regions:
            for item in region.items:
                if isinstance(item, Node):
                    self.place[id(item)] = region.path
        self.blocks = {region.path for region in self.tree.regions}
        self.renamed: dict[Value, str] = {}
        self.layers = self._layers(candidates)
        owned = {w.value for _, layer in self.layers.values() for w in layer.weights}
        self.homes = {v: self._home(v) for v, leaf in self.leaves.items() if v not in owned and leaf.role != "input"}
        self.windows = windows(program)
        self.has_guesses = False
        self.lengths: dict[str, dict[tuple[int, ...], tuple[Dim, Value]]] = defaultdict(dict)
        self._bodies: dict[str, Body] = {}
        self._members: dict[str, dict[Any, Member]] = defaultdict(dict)

    @functools.cached_property
    def variables(self) -> Variables:
        """What the user's source calls the program's values."""
        return variables(self.program)

    def root(self) -> Body:
        """The model's body, with the bodies of all nested blocks."""
        return self.body(self.tree)

    # Layers and weights -----------------------------------------------------------------------------------------------
    def _candidates(self) -> dict[Any, list[tuple[Node, LayerNode]]]:
        """The nodes that may become layers, by a key that the calls of one layer share: those with weights alone."""
        keys: dict[Any, list[tuple[Node, LayerNode]]] = defaultdict(list)
        users: dict[Value, set[Any]] = defaultdict(set)
        for number, node in enumerate(self.program.nodes):
            layer = self.dialect.layer(node)
            if layer is None:
                continue
            known = [self.leaves.get(weight.value) for weight in layer.weights]
            if any(leaf is None or leaf.role not in ("parameter", "buffer") for leaf in known):
                continue
            key = (tuple(w.value for w in layer.weights), repr(layer.constructor)) if layer.weights else number
            keys[key].append((node, layer))
            for weight in layer.weights:
                users[weight.value].add(key)

        def alone(key: Any, nodes: list[tuple[Node, LayerNode]]) -> bool:
            values = [w.value for w in nodes[0][1].weights]
            return all(users[v] == {key} and len(self.readers[v]) == len(nodes) for v in values)

        return {key: nodes for key, nodes in keys.items() if alone(key, nodes)}

    def _layers(self, candidates: Mapping[Any, list[tuple[Node, LayerNode]]]) -> dict[int, tuple[Any, LayerNode]]:
        """The layer of each node that becomes one, with its key."""
        found: dict[int, tuple[Any, LayerNode]] = {}
        for key, nodes in candidates.items():
            places = {self.place[id(node)] for node, _ in nodes}
            owner = self._owner(*nodes[0])
            [place] = places if len(places) == 1 else [None]
            if place is None or (place and not f"{owner}.".startswith(f"{place}.")):
                continue
            if not nodes[0][1].weights or self._is_a_layers(nodes[0][1], owner, place):
                found |= {id(node): (key, layer) for node, layer in nodes}
        return self._apart_from_weights(found) if self.dialect.holds_weights else found

    def _apart_from_weights(self, layers: dict[int, tuple[Any, LayerNode]]) -> dict[int, tuple[Any, LayerNode]]:
        """Without layers at a path where the source has other weights too: they would be taken for the layer's."""
        owned = {weight.value for _, layer in layers.values() for weight in layer.weights}
        held = {
            leaf.name.rpartition(".")[0]
            for value, leaf in self.leaves.items()
            if leaf.role in ("parameter", "buffer") and self.readers[value] and value not in owned
        } - self.blocks
        found = {
            number: (key, layer)
            for number, (key, layer) in layers.items()
            if not layer.weights or self.leaves[layer.weights[0].value].name.rpartition(".")[0] not in held
        }
        return found if len(found) == len(layers) else self._apart_from_weights(found)

    def _is_a_layers(self, layer: LayerNode, owner: str, place: str) -> bool:
        """Whether weights may be those of a layer: not where that would change the names that they have."""
        leaves = {weight.name: self.leaves[weight.value] for weight in layer.weights}
        if owner != place and self.dialect.holds_weights:
            # A layer that was made for weights that lie beside others: they lie there again.
            names = {leaf.value: own(owner, name) for name, leaf in leaves.items()}
            kept = {value: name for value, name in names.items() if name is not None}
            self.renamed |= kept
            return not kept
        if owner != place:
            return True
        return not self.dialect.holds_weights and beside([_last(leaf) for leaf in leaves.values()]) is not None

    def _owner(self, node: Node, layer: LayerNode) -> str:
        names = [self.leaves[w.value].name.rpartition(".")[0] for w in layer.weights]
        return names[0] if names else node.module

    def _home(self, value: Value) -> str:
        """The innermost block that contains all readers."""
        places = [self.place[id(node)] for node in self.readers[value]] or [""]
        names = places[0].split(".")
        for place in places[1:]:
            other = place.split(".")
            names = [a for n, a in enumerate(names) if names[: n + 1] == other[: n + 1]]
        while names and ".".join(names) not in self.blocks:
            names.pop()
        return ".".join(names)

    # Bodies -----------------------------------------------------------------------------------------------------------
    def body(self, region: Region) -> Body:
        """A block's body; one for all calls of a layer."""
        if region.path in self._bodies:
            return self._bodies[region.path]
        inputs, outputs = self._interface(region)
        body = Body(region.path, region.kind, inputs, outputs, repeats=region.loop is not None)
        self._bodies[region.path] = body
        for item in region.items:
            if isinstance(item, Region):
                self._call(body, item)
            elif item.operator not in LOOPED:
                self._node(body, item)
        body.is_chain = bool(region.path) and not body.repeats and self._is_chain(body)
        return body

    def _interface(self, region: Region) -> tuple[list[Value], list[Value]]:
        if not region.path:
            return [leaf.value for leaf in self.program.of_role("input")], [v for _, v in self.program.outputs]
        taken, given = interface(region, self.readers, self.wanted | self.alike.get(region.path, set()))
        owned = {w.value for node in region.nodes if id(node) in self.layers for w in self.layers[id(node)][1].weights}
        inside = f"{region.path}."
        inputs = [
            value
            for value in taken
            if value not in owned
            and self._literal(value) is None
            and not (value in self.homes and f"{self.homes[value]}.".startswith(inside))
        ]
        return inputs, given

    def _call(self, body: Body, region: Region) -> None:
        inner = self.body(region)
        known = self._members[body.path]
        if region.path not in known:
            relative = region.path.removeprefix(f"{body.path}.") if body.path else region.path
            known[region.path] = Member(self._attribute(body, relative, region.kind), _flat(relative), body=inner)
            body.members.append(known[region.path])
        inputs, outputs = self._interface(region)
        args = tuple(self._operand(body, value) for value in inputs)
        near = [*inputs, *self._near(body)]
        # Keras takes what is no array by its name alone.
        keywords = tuple(
            (value.dtype.removeprefix(LENGTH), self._length(body, dim, near, value.dtype, region.path))
            for dim, value in self.lengths[region.path].values()
        )
        member = Name(f"self.{known[region.path].name}")
        if region.loop is not None:
            body.statements.append(self._looped(body, member, region.loop, args, keywords))
        else:
            body.statements.append(Statement(tuple(outputs), Apply(member, args, keywords)))

    def _looped(
        self, body: Body, step: Code, loop: tuple[Node, Node], args: Sequence[Code], lengths: Sequence[Any]
    ) -> Statement:
        """The call of a block for each place of an axis."""
        start, end = loop
        if lengths:
            raise Unlooped
        sequences, states = (Listed(tuple(self._operand(body, v) for v in part)) for part in start.operands)  # type: ignore[union-attr, arg-type]
        given = {**start.attributes, **end.attributes}
        mask = [("mask", self._operands(body, operand)) for operand in end.operands[2:]]
        keywords: list[tuple[str, Code]] = [("fixed", Listed(tuple(args[len(start.outputs) :]))), *mask]
        keywords += [("hidden", given.get("hidden", "zeros")), ("axes", given["axes"]), ("axis", given["axis"])]
        default = {"fixed": Listed(()), "hidden": "zeros", "axes": (1,), "axis": 1}
        written = tuple((name, code) for name, code in keywords if name not in default or code != default[name])
        return Statement(end.outputs, Apply(Name(HELPER), (step, sequences, states), written))

    def _node(self, body: Body, node: Node) -> None:
        operands = [self._operands(body, operand) for operand in node.operands]
        key, layer = self.layers.get(id(node), (None, None))
        try:
            if layer is None:
                code = self.dialect.expression(node, operands)
            else:
                known = self._members[body.path]
                if key not in known:
                    known[key] = self._layer(body, node, layer)
                    body.members.append(known[key])
                code = layer.apply(Name(f"self.{known[key].name}"), operands)
                if not isinstance(code, Apply):
                    # The result of the layer is changed afterwards, such as cropped.
                    known[key].output = None
        except Unwritable as error:
            code = self.functions.call(node, operands, error.message)
        code = self._sized(body, node, code)
        arrays = [value for value in (*refs(code), *self._near(body)) if not value.dtype.startswith(LENGTH)]
        if arrays and not node.reads:
            code = self.dialect.beside(code, Ref(arrays[0]))
        moved = (self.moved[id(node)],) if id(node) in self.moved else ()
        body.statements.append(Statement(node.outputs, code, moved))

    def _layer(self, body: Body, node: Node, layer: LayerNode) -> Member:
        owner = self._owner(node, layer)
        inside = {
            leaf.name.rpartition(".")[0] for leaf in self.leaves.values() if leaf.name.startswith(f"{node.module}.")
        }
        if node.module and inside == {owner}:
            owner = node.module  # weights of a recurrent layer's cell, which is no layer of the target
        relative = owner if not body.path else owner.removeprefix(body.path).removeprefix(".")
        stem = layer.stem
        if not relative:
            relative = beside([_last(self.leaves[w.value]) for w in layer.weights]) or layer.stem
            stem = relative.rstrip("_") or layer.stem
        taken = {member.layer for member in body.members}
        name, number = _flat(relative), 2
        while name in taken:
            name, number = f"{_flat(relative)}_{number}", number + 1
        weights = tuple((w.name, self.leaves[w.value], () if w.step is None else (w.step,)) for w in layer.weights)
        attribute = self._attribute(body, stem if name.endswith("_") else name, layer.stem)
        return Member(attribute, name, layer.constructor, weights=weights, output=node.outputs[0])

    def _attribute(self, body: Body, relative: str, stem: str) -> str:
        taken = {member.name for member in body.members} | self.dialect.reserved
        if relative[:1].isdigit():
            relative = f"{_snake(stem) or 'block'}_{relative}"
        return identifier(relative, taken)

    def _operands(self, body: Body, operand: Operand) -> Code:
        if isinstance(operand, tuple):
            return tuple(self._operands(body, part) for part in operand)
        return self._operand(body, operand) if isinstance(operand, Value) else operand

    def _operand(self, body: Body, value: Value) -> Code:
        literal = self._literal(value)
        if literal is not None:
            return literal
        if self.homes.get(value) != body.path or value not in self.homes:
            return Ref(value)
        known = self._members[body.path]
        if value not in known:
            leaf = self.leaves[value]
            if leaf.role == "constant":
                relative = _constant_name(leaf)
            else:
                full = self.renamed.get(value, leaf.name)
                relative = full.removeprefix(f"{body.path}.") if body.path else full
            taken = {member.layer for member in body.members}
            name, number = _flat(relative), 2
            while name in taken:
                name, number = f"{_flat(relative)}_{number}", number + 1
            known[value] = Member(self._attribute(body, name, "weight"), name, leaf=leaf)
            body.members.append(known[value])
        return Name(f"self.{known[value].name}")

    def _literal(self, value: Value) -> Any:
        leaf = self.leaves.get(value)
        if leaf is None or leaf.array is None or leaf.array.size > 1 or leaf.array.dtype.kind not in "fiub":
            return None
        return leaf.array.reshape(()).item() if leaf.array.ndim == 0 else None

    # Sizes ------------------------------------------------------------------------------------------------------------
    def _sized(self, body: Body, node: Node, code: Code) -> Code:
        """The code with variable lengths written as expressions of shapes."""
        near = [v for v in node.reads if v not in self.homes]
        near += [v for v in self._near(body) if v not in near]

        def instead(piece: Code) -> Code:
            if isinstance(piece, Dim):
                return self._length(body, piece, near, LENGTH + self._called(node, piece), node.operator)
            return piece

        if node.operator == "pad" and isinstance(code, Apply) and len(code.args) > 1:
            code = self._bordered(node, code)
        if node.operator == "reshape":
            code = replaced(code, lambda piece: self._open(piece, near))
        return replaced(code, instead)

    def _bordered(self, node: Node, code: Apply) -> Code:
        """The widths of a border, each by the length of its own axis where that tells."""
        [x] = [operand for operand in node.operands if isinstance(operand, Value)]
        array, widths, *rest = code.args

        def width(n: Any, axis: int) -> Code:
            if not isinstance(n, Dim):
                return n
            alone = Value(x.id, tuple(m if a == axis else 1 for a, m in enumerate(x.shape)), x.dtype)
            found = spelled(n, [alone], lambda _: self.dialect.shape(array), self.windows)
            return n if found is None else self._sure(found)

        if all(isinstance(pair, tuple) for pair in widths):
            found = tuple(tuple(width(n, axis) for n in pair) for axis, pair in enumerate(widths))
        else:  # a flat list that starts with the last axis, as torch's
            found = tuple(width(n, len(x.shape) - 1 - k // 2) for k, n in enumerate(widths))
        return Apply(code.function, (array, found, *rest), code.keywords)

    def _sure(self, found: Spelled) -> Code:
        """The code of a length; remembers whether one was found by trying."""
        self.has_guesses |= not found.is_certain
        return found.code

    @staticmethod
    def _near(body: Body) -> list[Value]:
        """The values whose shapes may be asked for, so far."""
        return [*body.inputs, *(v for s in body.statements for v in s.targets)]

    def _length(self, body: Body, dim: Dim, near: Sequence[Value], name: str, what: str) -> Code:
        """A length by the shapes of values; one that these do not tell is an argument of the block."""
        found = spelled(dim, near, self.dialect.shape, self.windows)
        if found is not None:
            return self._sure(found)
        known = self.lengths[body.path]
        if not body.path:
            raise Differ(f"a length of {what}, {int(dim)}, follows from the inputs in a way that has no simple formula")
        if dim.sizes not in known:
            taken = [value.dtype for _, value in known.values()]
            names = itertools.chain((name,), (f"{name}_{k}" for k in itertools.count(2)))
            name = next(n for n in names if n not in taken)
            value = Value(-(10**6) - len(taken), (), name)
            known[dim.sizes] = (dim, value)
            body.inputs.append(value)
        return Ref(known[dim.sizes][1])

    def _called(self, node: Node, dim: Dim) -> str:
        """What a length is called: by its axis, where it is one of an image's."""
        shape = node.outputs[0].shape
        first = 1 if self.dialect.channels == -1 else 2
        axes = dict(zip(("height", "width"), shape[first : first + 2], strict=False)) if len(shape) == 4 else {}
        return next(
            (n for n, length in axes.items() if isinstance(length, Dim) and length.sizes == dim.sizes), "length"
        )

    def _open(self, piece: Code, near: Sequence[Value]) -> Code:
        """A shape with one variable length left to the framework: -1."""
        if not isinstance(piece, tuple) or not any(isinstance(n, Dim) for n in piece):
            return piece
        places = [i for i, n in enumerate(piece) if isinstance(n, Dim)]
        hard = [i for i in places if spelled(piece[i], near, self.dialect.shape, self.windows) is None]
        chosen = hard[0] if hard else places[0]
        return tuple(-1 if i == chosen else n for i, n in enumerate(piece))

    # Chains -----------------------------------------------------------------------------------------------------------
    def _is_chain(self, body: Body) -> bool:
        """Whether each statement calls a member, or a layer without weights, on the result of the one before."""
        if len(body.inputs) != 1 or len(body.outputs) != 1 or len(body.statements) < 1:
            return False
        current = body.inputs[0]
        called = []
        for statement in body.statements:
            if len(statement.targets) != 1:
                return False
            code = statement.code
            simple = isinstance(code, Apply) and code.args == (Ref(current),) and not code.keywords
            name = code.function.text if simple and isinstance(code.function, Name) else ""
            if simple and name.startswith("self."):
                called.append(name)
            else:
                node = next(n for n in self.program.nodes if statement.targets[0] in n.outputs)
                layer = self.dialect.as_layer(node)
                if layer is None or list(node.reads) != [current]:
                    return False
                called.append("")
            current = statement.targets[0]
        if any(count > 1 for count in Counter(v for s in body.statements for v in refs(s.code)).values()):
            return False
        named = [name for name in called if name]
        return current == body.outputs[0] and len(set(named)) == len(named) == len(body.members)


def _last(leaf: Leaf) -> str:
    return leaf.name.rpartition(".")[2]


def _constant_name(leaf: Leaf) -> str:
    """What an array of constants is called: mask, index or table, behind what says that it is none of the model's."""
    assert leaf.array is not None
    kind = leaf.array.dtype.kind
    if kind == "b" or (kind == "f" and leaf.array.size and leaf.array.max() == 0 and leaf.array.min() <= -100):
        return f"{CONSTANT}mask"
    return f"{CONSTANT}index" if kind in "iu" else f"{CONSTANT}table"


def _flat(relative: str) -> str:
    """A name for a layer that may stand in a path: a dot, of a list that holds layers and is not called, as a dash."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in relative.replace(".", "-"))


def _snake(kind: str) -> str:
    words = "".join(
        f"_{c.lower()}" if c.isupper() and n and not kind[n - 1].isupper() else c.lower() for n, c in enumerate(kind)
    )
    return "".join(c for c in words if c.isascii() and (c.isalnum() or c == "_")).strip("_")
