"""Blocks of a flat model: one whose layers are called one after the other, with no blocks around them.

Names tell what belongs together: ``conv2_block1_1_conv`` and ``conv2_block1_1_bn`` begin alike, so ``block1`` of
``conv2`` is a block, if what begins so can be called as one. Where names were given by the framework alone, the graph
tells: a product with its norm and activation, and what lies between two values through which everything passes.

A layer's new name is its path: ``conv2.block1.conv_1``. :class:`Nested` has the old name of each.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agnostic.port.flat import FoundBlock, Graph, Item, Unit
from agnostic.port.grouping import grouped
from agnostic.port.kinds import PRODUCTS, kind_of
from agnostic.program.nodes import Node, Program, Value

FLAT = "Functional"
"""The class name of a model that is a graph of layers."""


@dataclass(frozen=True)
class Nested:
    """A program with blocks.

    Attributes:
        program: with new paths of layers and names of weights, in an order in which each block runs at once.
        layers: the old path of each layer that has a new one, by the new one.
        weights: the old name of each such weight, by the new one.
    """

    program: Program
    layers: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)


def nested(program: Program) -> Nested:
    """Find the blocks of the flat models in a program."""
    weights = {leaf.value for leaf in program.leaves if leaf.role in ("parameter", "buffer")}
    wanted = {value for _, value in program.outputs}
    found = Nested(program)
    flat = [path for path, kind in program.modules.items() if kind == FLAT]
    for base in sorted(flat, key=lambda path: -path.count(".")):
        found = _nested(found, base, weights, wanted)
    return _called(found)


def _called(before: Nested) -> Nested:
    """The program with the names that the user's source gives layers in the place of those that the framework made."""
    program = before.program
    wanted = {path: program.called.get(before.layers.get(path, path)) for path in program.modules if path}
    if not any(wanted.values()):
        return before
    taken: dict[str, set[str]] = defaultdict(set)
    for path, name in wanted.items():
        if name is None:
            taken[path.rpartition(".")[0]].add(path.rpartition(".")[2])
    paths: dict[str, str] = {}
    for path in sorted(wanted, key=lambda path: path.count(".")):
        parent, _, name = path.rpartition(".")
        given = wanted[path]
        if given is not None:
            name = _free(given, taken[parent])
            taken[parent].add(name)
        paths[path] = f"{paths.get(parent, parent)}.{name}".removeprefix(".")
    return _moved(before, paths, {}, {}, program.nodes)


def _nested(before: Nested, base: str, weights: set[Value], wanted: set[Value]) -> Nested:
    program = before.program
    inside = f"{base}." if base else ""
    calls: dict[str, list[Node]] = defaultdict(list)
    for node in program.nodes:
        if not base or node.module == base or node.module.startswith(inside):
            calls[_call_of(node, base)].append(node)
    trees: dict[str, list[Item]] = {}
    for key, nodes in calls.items():
        units = _units(nodes, base, program, weights)
        counts = Counter(unit.name for unit in units if unit.name)
        for unit in units:
            unit.is_shared = counts[unit.name] > 1
        ids = {id(node) for node in nodes}
        outside = {v for node in program.nodes if id(node) not in ids for v in node.reads} | wanted
        trees[key] = grouped(Graph(units, outside, weights), program.name)
    first = next(iter(trees.values()), [])
    if not any(isinstance(item, FoundBlock) for item in first):
        return before
    if any(_shape(tree) != _shape(first) for tree in trees.values()):
        return before
    return _renamed(before, base, trees, weights)


def _call_of(node: Node, base: str) -> str:
    return next((key for key in node.calls if key.partition("@")[0] == base), base)


def _shape(items: Sequence[Item]) -> object:
    return [(item.name, _shape(item.items)) if isinstance(item, FoundBlock) else item.name for item in items]


def _units(nodes: Sequence[Node], base: str, program: Program, weights: set[Value]) -> list[Unit]:
    inside = f"{base}." if base else ""
    units: list[Unit] = []
    last = ""
    for node in nodes:
        name = node.module.removeprefix(inside).partition(".")[0] if node.module != base else ""
        called = next((key for key in node.calls if key.partition("@")[0] == f"{inside}{name}"), "") if name else ""
        has_weights = any(value in weights for value in node.reads)
        if name and units and units[-1].name == name and last == called:
            units[-1].nodes.append(node)
            units[-1].has_weights |= has_weights
        else:
            kind = program.modules.get(f"{inside}{name}", "")
            units.append(Unit(name, [node], has_weights, bool(name) and _is_given(name, kind), base))
        last = called
    return units


def _is_given(name: str, kind: str) -> bool:
    """Whether a name is what frameworks call a layer of a class that nobody named: ``conv2d_3`` of a Conv2D."""
    plain = re.sub(r"_\d+$", "", name).replace("_", "")
    return bool(kind) and plain == kind.lower()


# Names ----------------------------------------------------------------------------------------------------------------
def _renamed(before: Nested, base: str, trees: Mapping[str, Sequence[Item]], weights: set[Value]) -> Nested:
    """The program in its new order, with its new paths."""
    program = before.program
    paths: dict[str, str] = {}
    homes: dict[int, str] = {}
    kinds: dict[str, str] = {}
    for tree in trees.values():
        _walk(tree, base, [], False, paths, homes, kinds, weights)
    order = {id(node): n for n, node in enumerate(program.nodes)}
    first = {key: min(order[id(x)] for item in tree for x in item.nodes) for key, tree in trees.items()}
    sorted_: list[Node] = []
    begins = {n: key for key, n in first.items()}
    inside = {id(node) for tree in trees.values() for item in tree for node in item.nodes}
    for n, node in enumerate(program.nodes):
        if n in begins:
            for item in trees[begins[n]]:
                sorted_ += item.nodes
        if id(node) not in inside:
            sorted_.append(node)
    return _moved(before, paths, homes, kinds, sorted_)


def _moved(
    before: Nested, paths: Mapping[str, str], homes: Mapping[int, str], kinds: Mapping[str, str], nodes: Sequence[Node]
) -> Nested:
    """The program with its layers at other paths.

    Args:
        before: the program.
        paths: the new path of each layer that has one, by the old one; layers inside follow.
        homes: the new path of nodes that do not follow their layer, by their ids.
        kinds: of the new blocks, by their paths.
        nodes: in their new order.
    """
    program = before.program

    def path(old: str) -> str:
        parts = old.split(".")
        for end in range(len(parts), 0, -1):
            known = ".".join(parts[:end])
            if known in paths:
                return ".".join([paths[known], *parts[end:]])
        return old

    def moved(node: Node) -> Node:
        module = homes.get(id(node)) or path(node.module)
        known = {path(key.partition("@")[0]): key.partition("@")[2] for key in node.calls}
        parts = module.split(".") if module else []
        calls = [".".join(parts[:end]) for end in range(len(parts) + 1)]
        called = tuple(f"{call}@{known[call]}" if known.get(call) else call for call in calls)
        return replace(node, module=module, calls=called if node.calls else ())

    names: set[str] = set()
    leaves = tuple(
        replace(leaf, name=_weight_name(leaf.name, path(leaf.name.rpartition(".")[0]), names))
        if leaf.role in ("parameter", "buffer") and "." in leaf.name
        else leaf
        for leaf in program.leaves
    )
    modules = {path(old): kind for old, kind in program.modules.items()} | dict(kinds)
    new = replace(program, nodes=tuple(map(moved, nodes)), leaves=leaves, modules=modules)
    old_layers = {
        path(old): before.layers.get(old, old) for old in program.modules if path(old) != old or old in before.layers
    }
    old_weights = {
        leaf.name: before.weights.get(old.name, old.name)
        for leaf, old in zip(leaves, program.leaves, strict=True)
        if leaf.name != old.name or old.name in before.weights
    }
    return Nested(new, old_layers, old_weights)


def _weight_name(old: str, owner: str, taken: set[str]) -> str:
    """A weight's name under its layer's new path; one that nobody named counts within its layer alone."""
    name = f"{owner}.{re.sub(r'^variable_[0-9]+$', 'variable', old.rpartition('.')[2])}"
    name = _free(name, taken)
    taken.add(name)
    return name


def _walk(
    items: Sequence[Item], path: str, prefix: list[str], plain: bool, paths: dict[str, str], homes: dict[int, str],
    kinds: dict[str, str], weights: set[Value],
) -> None:  # fmt: skip
    """Give everything inside of a block its new path."""
    inside = f"{path}." if path else ""
    taken: set[str] = set()
    for item in items:
        if isinstance(item, Unit):
            if not item.name:
                homes[id(item.nodes[0])] = path
                continue
            old = f"{item.base}.{item.name}".lstrip(".")
            if old in paths:
                continue
            name = _free(_shown(item, prefix, plain), taken)
            paths[old] = f"{inside}{name}"
        else:
            name = _free(re.sub(r"_\d+$", "", item.name) if plain else item.name, taken)
            kinds[f"{inside}{name}"] = "Stage" if _is_stage(item) else kind_of(item.nodes, weights)
            given = all(unit.given for unit in item.units if unit.has_weights)
            if item.is_chain:
                for unit, role in zip(item.units, _roles(item), strict=True):
                    paths[f"{unit.base}.{unit.name}".lstrip(".")] = f"{inside}{name}.{role}"
                taken.add(name)
                continue
            _walk(item.items, f"{inside}{name}", [*prefix, *item.name.split("_")], given, paths, homes, kinds, weights)
        taken.add(name)


def _roles(chain: FoundBlock) -> list[str]:
    """What the layers of a chain are called."""
    product = next(node.operator for node in chain.nodes if node.operator in PRODUCTS)
    return ["linear" if product == "linear" else "conv", "norm", "activation"][: len(chain.items)]


def _is_stage(group: FoundBlock) -> bool:
    return len(group.items) > 1 and all(isinstance(item, FoundBlock) for item in group.items)


def _shown(unit: Unit, prefix: Sequence[str], plain: bool) -> str:
    """A unit's name in its block: without what the block is called, a number behind the word that it counts."""
    if plain:
        return re.sub(r"_?\d+$", "", unit.name) if not unit.given else re.sub(r"_\d+$", "", unit.name)
    parts = unit.parts
    rest = parts[len(prefix) :] if parts[: len(prefix)] == list(prefix) else []
    if not rest:
        return unit.name
    if rest[0].isdigit() and len(rest) > 1:
        rest = [*rest[1:], rest[0]]
    return "_".join(rest)


def _free(name: str, taken: set[str]) -> str:
    number, found = 2, name
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found
