"""The layer calls of a program as a tree: each operator belongs to the innermost layer call that ran it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from agnostic.port.loops import Unlooped
from agnostic.port.names import is_usual
from agnostic.program.nodes import Node, Operand, Program, Value, readers_of

SMALL = 2
"""A layer of at most so many operators that compute, and no layers inside, is written where it is called."""


@dataclass
class Region:
    """One call of a layer.

    Attributes:
        path: of the layer.
        kind: the layer's class name; ``""`` where it is unknown.
        items: operators and nested layer calls, in order.
        loop: the start and the end of the loop whose nodes these are; None where the call runs once.
    """

    path: str
    kind: str
    items: list[Node | Region] = field(default_factory=list)
    loop: tuple[Node, Node] | None = None

    @property
    def nodes(self) -> Iterator[Node]:
        """All operators inside, in order."""
        for item in self.items:
            if isinstance(item, Region):
                yield from item.nodes
            else:
                yield item

    @property
    def regions(self) -> Iterator[Region]:
        """This call and all nested calls, in order."""
        yield self
        for item in self.items:
            if isinstance(item, Region):
                yield from item.regions


def regions(program: Program, layered: Collection[Value]) -> Region:
    """The tree of a program's calls; the root is the model.

    Args:
        program: laid out.
        layered: weights that layers of the target may have; a block that holds others itself stays a block.
    """
    root = Region("", program.name)
    open_: list[tuple[str, Region]] = [("", root)]
    for node in program.nodes:
        keys = _keys(node)
        depth = 0
        while depth < len(keys) and depth + 1 < len(open_) and open_[depth + 1][0] == keys[depth]:
            depth += 1
        del open_[depth + 1 :]
        for key in keys[depth:]:
            path = key.partition("@")[0]
            region = Region(path, program.modules.get(path, node.kind if path == node.module else ""))
            open_[-1][1].items.append(region)
            open_.append((key, region))
        open_[-1][1].items.append(node)
    _close_loops(root)
    held = [x for x in program.leaves if x.role in ("parameter", "buffer")]
    owners = {x.value: x.name.rpartition(".")[0] for x in held}
    kept = {x.value for x in held if x.value not in layered or not is_usual(x.name)}
    weights = {x.value for x in program.leaves if x.role != "input"}
    alone = _of_weights_alone(root, weights)
    _splice(root, lambda region: id(region) in alone)
    _dissolve(root, {value for _, value in program.outputs}, owners, kept)
    return root


def _close_loops(region: Region) -> None:
    """Tell calls that the nodes of a loop are.

    Raises:
        Unlooped: those of a loop are no single call.
    """
    for place, item in enumerate(region.items):
        if isinstance(item, Region):
            _close_loops(item)
        elif item.operator == "loop_start":
            inside, end = (*region.items[place + 1 : place + 3], None, None)[:2]
            if not isinstance(inside, Region) or not isinstance(end, Node) or end.operator != "loop_end":
                raise Unlooped
            inside.loop = (item, end)


def given_alike(root: Region, readers: Mapping[Value, list[Node]], wanted: set[Value]) -> dict[str, set[Value]]:
    """By layers that are called several times, what one call gives to somebody, in all calls."""
    found: dict[str, set[Value]] = {}
    for path, regions in _calls(root).items():
        results = [[value for node in region.nodes for value in node.outputs] for region in regions]
        if not path or len(regions) < 2 or len({len(values) for values in results}) > 1:
            continue
        given = [set(interface(region, readers, wanted)[1]) for region in regions]
        for alike in zip(*results, strict=True):
            if any(value in values for value, values in zip(alike, given, strict=True)):
                found.setdefault(path, set()).update(alike)
    return found


def _calls(root: Region) -> dict[str, list[Region]]:
    """The calls of each layer."""
    found: dict[str, list[Region]] = defaultdict(list)
    for region in root.regions:
        found[region.path].append(region)
    return found


def _of_weights_alone(root: Region, weights: set[Value]) -> set[int]:
    """The calls whose only inputs are weights that no other call reads. A layer cannot be called without inputs."""
    readers = readers_of(root.nodes)
    found = set()
    for region in root.regions:
        inside = {id(node) for node in region.nodes}
        taken = interface(region, readers, set())[0]
        if region.path and all(v in weights and all(id(n) in inside for n in readers[v]) for v in taken):
            found.add(id(region))
    return found


def _keys(node: Node) -> list[str]:
    """One key per enclosing call below the model: the layer's path, and the number of the call."""
    known = {key.partition("@")[0]: key for key in node.calls}
    names = node.module.split(".") if node.module else []
    paths = [".".join(names[: end + 1]) for end in range(len(names))]
    return [known.get(path, path) for path in paths]


def _dissolve(root: Region, wanted: set[Value], owners: Mapping[Value, str], kept: set[Value]) -> None:
    """Inline small calls, and the calls of a layer that differ from each other."""
    _splice(root, lambda region: _is_small(region, owners, kept))
    while True:
        readers = readers_of(root.nodes)
        alike = given_alike(root, readers, wanted)
        unequal = {
            path
            for path, found in _calls(root).items()
            if path
            and len(found) > 1
            and len({(signature(x, readers, wanted | alike.get(path, set())), _weights(x, owners)) for x in found}) > 1
        }
        if not unequal:
            return
        if any(region.loop is not None and region.path in unequal for region in root.regions):
            raise Unlooped
        outer = {path for path in unequal if not any(path.startswith(f"{other}.") for other in unequal)}
        _splice(root, lambda region, outer=outer: region.path in outer)


def _weights(region: Region, owners: Mapping[Value, str]) -> tuple[Value, ...]:
    """The weights that a call reads. They tell calls apart that share a path, such as layers of a list."""
    return tuple(value for node in region.nodes for value in node.reads if value in owners)


def _is_small(region: Region, owners: Mapping[Value, str], kept: set[Value]) -> bool:
    """Whether a call has few operators, and inlining it keeps the path and the name of every weight."""
    if region.path and any(value in kept for node in region.nodes for value in node.reads):
        return False
    if any(isinstance(item, Region) for item in region.items):
        return False
    count = sum(node.operator not in ("reshape", "permute") for node in region.nodes)
    found = {owners[value] for node in region.nodes for value in node.reads if value in owners}
    # The one operator of a layer may read the weights of a cell, whose name the one layer of the target does not have.
    runs_itself = all(node.module == region.path for node in region.nodes)
    if found - {region.path} and not (count == len(found) == 1 and runs_itself):
        return False
    return count <= SMALL


def _splice(region: Region, gone: object) -> None:
    found: list[Node | Region] = []
    for item in region.items:
        if isinstance(item, Region):
            _splice(item, gone)
            if item.loop is None and gone(item):  # type: ignore[operator]
                found += item.items
                continue
        found.append(item)
    region.items = found


def interface(
    region: Region, readers: Mapping[Value, list[Node]], wanted: set[Value]
) -> tuple[list[Value], list[Value]]:
    """The values that a call reads from outside, weights included, and its results that others read; both in order."""
    if region.loop is not None:
        return _of_loop(region, *region.loop)
    inside = list(region.nodes)
    made = {value for node in inside for value in node.outputs}
    ids = {id(node) for node in inside}
    taken = dict.fromkeys(value for node in inside for value in node.reads if value not in made)
    given = [
        value
        for node in inside
        for value in node.outputs
        if value in wanted or any(id(reader) not in ids for reader in readers.get(value, ()))
    ]
    return list(taken), given


def _of_loop(region: Region, start: Node, end: Node) -> tuple[list[Value], list[Value]]:
    """What a call at each place takes, slices and states first, and what it gives: its output and the states after."""
    inside = list(region.nodes)
    made = {value for node in inside for value in node.outputs}
    taken = dict.fromkeys((*start.outputs, *(value for node in inside for value in node.reads if value not in made)))
    output, states, *_ = end.operands
    return list(taken), [output, *states]  # type: ignore[list-item, misc]


def signature(region: Region, readers: Mapping[Value, list[Node]], wanted: set[Value]) -> str:
    """A text that is equal for two calls that compute the same function, apart from sizes."""
    numbers: dict[Value, int] = {}

    def number(operand: Operand) -> object:
        if isinstance(operand, Value):
            return f"%{numbers.setdefault(operand, len(numbers))}"
        return tuple(map(number, operand)) if isinstance(operand, tuple) else operand

    lines = []
    for node in region.nodes:
        lines.append((node.operator, tuple(map(number, node.operands)), sorted(node.attributes.items(), key=str)))
        for value in node.outputs:
            number(value)
    given = [number(value) for value in interface(region, readers, wanted)[1]]
    return repr((lines, given))
