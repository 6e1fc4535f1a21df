"""Borders and cuts whose widths follow from the size of an image, so that some sizes need none.

A model that was read at several sizes has the same operators at each of them only if a border of no width is kept where
another size needs one. And a border that is as wide as a window needs to stand at every stride-th place is the window's
own: what Keras calls ``padding="same"``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agnostic.program.nodes import Node, Program, Value, givers_of, read_counts, substituted
from agnostic.program.passes import is_identity, without, without_identities
from agnostic.reference.windows import same_padding

SIZED = ("pad", "slice")
"""Operators that change nothing at some sizes of the inputs, and something at others."""

WINDOWED = ("convolution", "max_pool", "average_pool")


def agreed(programs: Sequence[Program]) -> list[Program]:
    """The same model's programs with borders and cuts where any of them needs one, and none where all have no width."""
    longest = max(programs, key=lambda program: len(program.nodes))
    same = [_aligned(program, longest) for program in programs]
    found = [program for program in same if program is not None]
    if len(found) < len(programs):
        return [_absorbed([without_identities(program)])[0] for program in programs]
    programs = found
    columns = zip(*(program.nodes for program in programs), strict=True)
    idle = {place for place, nodes in enumerate(columns) if all(map(is_identity, nodes))}
    return _absorbed([without(program, lambda place, _: place in idle) for program in programs])


def _aligned(program: Program, like: Program) -> Program | None:
    """The program with borders and cuts of no width where another has them; None where they differ in more."""
    if len(program.leaves) != len(like.leaves):
        return None
    known = {theirs.value: ours.value for ours, theirs in zip(program.leaves, like.leaves, strict=True)}
    same: dict[Value, Value] = {}
    waiting, nodes = list(reversed(program.nodes)), []
    number = program.last_id
    for wanted in like.nodes:
        source = wanted.operands[0] if wanted.operands else None
        if waiting and (waiting[-1].operator, waiting[-1].module) == (wanted.operator, wanted.module):
            node = waiting.pop()
            ours, theirs = list(node.reads), [known.get(value) for value in wanted.reads]
            if len(ours) != len(theirs) or any(
                their is None or same.get(their, their) != our for our, their in zip(ours, theirs, strict=True)
            ):
                return None
            instead = {our: their for our, their in zip(ours, theirs, strict=True) if their is not None}
            nodes.append(substituted(node, instead))
            known |= dict(zip(wanted.outputs, node.outputs, strict=True))
        elif wanted.operator in SIZED and isinstance(source, Value) and source in known:
            number += 1
            inner = known[source]
            idle = _idle(wanted, inner, replace(inner, id=number))
            nodes.append(idle)
            same[idle.outputs[0]] = same.get(inner, inner)
            known[wanted.outputs[0]] = idle.outputs[0]
        else:
            return None
    back = {same.get(known[value], known[value]): known[value] for _, value in like.outputs if value in known}
    outputs = tuple((path, back.get(value, value)) for path, value in program.outputs)
    return None if waiting else replace(program, nodes=tuple(nodes), outputs=outputs)


def _idle(like: Node, source: Value, result: Value) -> Node:
    """A border or cut of no width."""
    if like.operator == "pad":
        options: dict[str, Any] = {"widths": ((0, 0),) * len(source.shape)}
    else:
        options = {"start": 0, "stop": source.shape[int(like.attributes["axis"])]}
        options |= {"step": 1} if "step" in like.attributes else {}
    return replace(like, operands=(source,), outputs=(result,), attributes={**like.attributes, **options})


def _absorbed(programs: Sequence[Program]) -> list[Program]:
    """Make borders before windows the windows' own, where they have the width that strides need at every size."""
    found = list(programs)
    if not any(node.operator == "pad" for node in found[0].nodes):
        return found
    givers = [givers_of(program.nodes) for program in found]
    readers = [read_counts(program) for program in found]
    places = [
        place
        for place, node in enumerate(found[0].nodes)
        if node.operator in WINDOWED and all(map(_is_same, found, givers, readers, itertools.repeat(place)))
    ]
    for number, program in enumerate(found):
        gone, changed = set(), {}
        for place in places:
            window = program.nodes[place]
            border = givers[number][window.operands[0]]  # type: ignore[index]
            padding = tuple(tuple(border.attributes["widths"][axis]) for axis in _axes(window))
            attributes = {**window.attributes, "padding": padding, "same": True}
            changed[place] = replace(window, operands=(border.operands[0], *window.operands[1:]), attributes=attributes)
            gone.add(id(border))
        nodes = (changed.get(place, node) for place, node in enumerate(program.nodes) if id(node) not in gone)
        found[number] = replace(program, nodes=tuple(nodes))
    return found


def _axes(window: Node) -> list[int]:
    rank = len(window.outputs[0].shape)
    return [axis for axis in range(1, rank) if axis != int(window.attributes.get("channel_axis", 1)) % rank]


def _is_same(program: Program, givers: Mapping[Value, Node], readers: Mapping[Value, int], place: int) -> bool:
    """Whether what a window moves over is a border, read by nothing else, of the width that its strides need."""
    window = program.nodes[place]
    border = givers.get(window.operands[0])  # type: ignore[arg-type]
    if border is None or border.operator != "pad" or border.attributes.get("mode", "constant") != "constant":
        return False
    if readers[border.outputs[0]] > 1:
        return False
    given, axes = window.attributes, _axes(window)
    value = border.attributes.get("value", 0.0)
    if any(map(any, given["padding"])):
        return False
    if value != (-math.inf if window.operator == "max_pool" else 0) or given.get("ceil_mode"):
        return False
    if window.operator == "average_pool" and not given.get("count_padding", True):
        return False
    widths, source = border.attributes["widths"], border.operands[0]
    assert isinstance(source, Value)
    kernel = given.get("kernel") or window.operands[1].shape[2:]  # type: ignore[union-attr]
    dilation = given.get("dilation") or (1,) * len(kernel)
    wanted = [(0, 0)] * len(widths)
    for axis, k, s, d in zip(axes, kernel, given["stride"], dilation, strict=True):
        wanted[axis] = same_padding(source.shape[axis], k, s, d)
    return [tuple(pair) for pair in widths] == wanted
