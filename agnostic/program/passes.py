"""Small passes over a program that do not change its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from agnostic.program.nodes import Array, Leaf, Node, Operand, Program, Value, givers_of, read_counts, substituted
from agnostic.program.vocabulary import evaluate, get, is_computable

LARGEST_CONSTANT = 1 << 24
"""Numbers that a folded constant may have; what is larger stays computed."""


def without_identities(program: Program, kept: Collection[str] = ()) -> Program:
    """Remove operators that return their operand unchanged, such as a reshape to the same shape.

    Args:
        program: the program.
        kept: names of operators to keep, since at another input size they might change their operand.
    """
    return without(program, lambda _, node: node.operator not in kept and (is_identity(node) or _is_neutral(node)))


def without(program: Program, drop: Callable[[int, Node], bool]) -> Program:
    """The program without some of the nodes that return their one operand as it is.

    Args:
        program: the program.
        drop: whether a node goes, by its place among all and by itself, with operands that are left.
    """
    instead: dict[Value, Value] = {}
    nodes = []
    for place, node in enumerate(program.nodes):
        node = substituted(node, instead)
        if drop(place, node):
            [source] = node.reads
            instead[node.outputs[0]] = source
        else:
            nodes.append(node)
    outputs = tuple((path, instead.get(value, value)) for path, value in program.outputs)
    return replace(program, nodes=tuple(nodes), outputs=outputs)


def is_identity(node: Node, inference: bool = False) -> bool:
    """Whether a node returns its operand unchanged; with ``inference`` a dropout outside of training does."""
    source = node.operands[0] if node.operands else None
    if not isinstance(source, Value):
        return False
    if node.operator == "identity":
        return True
    if node.operator in ("reshape", "expand"):
        return source.shape == node.outputs[0].shape
    if node.operator == "permute":
        return list(node.attributes["axes"]) == sorted(node.attributes["axes"])
    if node.operator == "cast":
        return source.dtype == node.outputs[0].dtype
    if node.operator == "pad":
        return not any(map(any, node.attributes["widths"]))
    if node.operator == "dropout":
        return not node.attributes["rate"] or (inference and not node.attributes.get("training", False))
    if node.operator == "slice":
        return source.shape == node.outputs[0].shape and node.attributes.get("step", 1) == 1
    return False


_NEUTRAL = {"add": 0, "subtract": 0, "multiply": 1, "divide": 1}


def _is_neutral(node: Node) -> bool:
    """Whether a node adds the number zero, as Python's sum() begins with, or multiplies by one."""
    if node.operator not in _NEUTRAL or len(node.operands) != 2 or len(node.reads) != 1:
        return False
    first, second = node.operands
    if not isinstance(first, Value):
        first, second = second, first
        if node.operator in ("subtract", "divide"):
            return False
    is_number = isinstance(second, int | float) and second == _NEUTRAL[node.operator]
    found = node.outputs[0]
    return is_number and isinstance(first, Value) and (first.shape, first.dtype) == (found.shape, found.dtype)


def folded(program: Program, tables: bool = False, sized: Collection[int] = ()) -> Program:
    """Compute values that depend on constants alone: masks, positions, tables of indices.

    Nodes that read a parameter or buffer stay, since these may change; random operators stay as well.

    Args:
        program: whose.
        tables: whether a constant that is cut stays whole, since another size of the inputs cuts it elsewhere.
        sized: places of nodes that stay computed, since another size of the inputs gives other numbers.
    """
    whole = {leaf.value for leaf in program.leaves} if tables else set()
    known: dict[Value, Array] = {leaf.value: leaf.array for leaf in program.leaves if leaf.array is not None}
    new, kept = [], []
    for place, node in enumerate(program.nodes):
        stays = place in sized or (node.operator == "slice" and node.operands[0] in whole)
        results = None if stays else _constant_results(node, known)
        if results is None:
            kept.append(node)
            continue
        known.update(zip(node.outputs, results, strict=True))
        new += [Leaf(f"constant_{v.id}", "constant", v, x) for v, x in zip(node.outputs, results, strict=True)]
    return used(replace(program, nodes=tuple(kept), leaves=(*program.leaves, *new)))


def sized_constants(programs: Sequence[Program]) -> set[int]:
    """Places of nodes that depend on constants alone, and give other numbers at another size of the inputs.

    Args:
        programs: of a model, read at several sizes, with as many nodes each.
    """
    found: set[int] = set()
    for place, results in enumerate(zip(*map(_constants, programs), strict=True)):
        first = results[0]
        if any(result is None for result in results):
            continue
        if any(
            not np.array_equal(x, y, equal_nan=x.dtype.kind in "fc")
            for result in results[1:]
            for x, y in zip(first, result, strict=True)
        ):
            found.add(place)
    return found


def _constants(program: Program) -> Iterator[tuple[Array, ...] | None]:
    """What each node gives that depends on constants alone; None for others."""
    known = {leaf.value: leaf.array for leaf in program.leaves if leaf.array is not None}
    for node in program.nodes:
        results = _constant_results(node, known)
        if results is not None:
            known.update(zip(node.outputs, results, strict=True))
        yield results


def _constant_results(node: Node, known: Mapping[Value, Array]) -> tuple[Array, ...] | None:
    """What a node gives that reads known arrays alone; None where it does not, is random, or gives too much."""
    small = all(np.prod(value.shape, dtype=np.int64) <= LARGEST_CONSTANT for value in node.outputs)
    fixed = is_computable(node) and not get(node.operator).random
    if not small or not fixed or any(value not in known for value in node.reads):
        return None
    with np.errstate(all="ignore"):
        return tuple(map(np.asarray, evaluate(node, known.__getitem__)))


def used(program: Program, wanted: Collection[Value] = ()) -> Program:
    """Remove nodes that neither an output nor a wanted value needs, and constants that no node reads."""
    needed = {*wanted, *(value for _, value in program.outputs)}
    kept = []
    for node in reversed(program.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.reads)
    leaves = tuple(leaf for leaf in program.leaves if leaf.role != "constant" or leaf.value in needed)
    return replace(program, nodes=tuple(reversed(kept)), leaves=leaves)


_WITH_BIAS = ("linear", "convolution", "transposed_convolution")


def biases_absorbed(program: Program) -> Program:
    """Turn the addition of a weight per channel into the bias of the product before it."""
    weights = {leaf.value for leaf in program.leaves if leaf.role in ("parameter", "buffer")}
    givers, uses = givers_of(program.nodes), read_counts(program)
    instead: dict[Value, Node | None] = {}
    for node in program.nodes:
        if node.operator != "add":
            continue
        for product, bias in (node.operands, node.operands[::-1]):
            giver = givers.get(product) if isinstance(product, Value) and uses[product] == 1 else None
            vector = _bias_of(giver, bias, givers, weights) if giver is not None else None
            if giver is not None and vector is not None and giver.module == node.module:
                operands = (*giver.operands[:2], vector)
                fused = replace(giver, operands=operands, outputs=node.outputs)
                instead |= {giver.outputs[0]: None, node.outputs[0]: fused}
                break
    kept = (instead.get(node.outputs[0], node) if node.outputs else None for node in program.nodes)
    return used(replace(program, nodes=tuple(node for node in kept if node is not None)))


def _bias_of(product: Node, bias: Operand, givers: Mapping[Value, Node], weights: Collection[Value]) -> Value | None:
    """The vector that an addition adds to each channel of a product; None for any other node."""
    if product.operator not in _WITH_BIAS or (len(product.operands) > 2 and product.operands[2] is not None):
        return None
    if not isinstance(bias, Value):
        return None
    shape, rank = bias.shape, len(product.outputs[0].shape)
    axis = product.attributes.get("channel_axis", -1) % rank
    place = axis - (rank - len(shape))
    if place < 0 or shape[place] != product.outputs[0].shape[axis] or math.prod(shape) != shape[place]:
        return None
    giver = givers.get(bias)
    source = giver.operands[0] if giver is not None and giver.operator == "reshape" else bias
    return source if isinstance(source, Value) and source in weights and len(source.shape) == 1 else None


def _into_giver(program: Program, operator: str, absorbed: Absorbed) -> Program:
    """Nodes of an operator become a part of the node that gives their first operand, where nobody else reads it."""
    uses = read_counts(program)
    nodes: list[Node | None] = list(program.nodes)
    places = {value: place for place, node in enumerate(program.nodes) for value in node.outputs}
    for place, node in enumerate(program.nodes):
        source = node.operands[0] if node.operator == operator and node.operands else None
        if not isinstance(source, Value) or uses[source] != 1 or source not in places:
            continue
        where = places[source]
        giver = nodes[where]
        fused = None if giver is None else absorbed(giver, node)
        if fused is not None:
            # It takes the place of the later one, before which all that it reads is known.
            nodes[where], nodes[place] = None, replace(fused, outputs=node.outputs)
    return used(replace(program, nodes=tuple(node for node in nodes if node is not None)))


Absorbed = Callable[[Node, Node], Node | None]
"""From a node and one that reads what it gives to one node in the place of both; None where there is none."""


def crops_absorbed(program: Program) -> Program:
    """Make what is cut from a transposed convolution at once a part of it."""

    def absorbed(giver: Node, node: Node) -> Node | None:
        rank = len(node.outputs[0].shape)
        channels = giver.attributes.get("channel_axis", 1) % rank
        axis = node.attributes["axis"] % rank
        if giver.operator != "transposed_convolution" or axis in (0, channels) or node.attributes.get("step", 1) != 1:
            return None
        place = axis - 1 - (channels == 1)
        length = giver.outputs[0].shape[axis]
        start, stop = node.attributes["start"], min(node.attributes["stop"], length)
        crop, extra = list(giver.attributes["crop"]), list(giver.attributes["extra"])
        low, high = crop[place][0] + start, crop[place][1] + length - stop
        crop[place], extra[place] = (low, max(high - extra[place], 0)), max(extra[place] - high, 0)
        return replace(giver, attributes={**giver.attributes, "crop": tuple(crop), "extra": tuple(extra)})

    return _into_giver(program, "slice", absorbed)


def paddings_absorbed(program: Program) -> Program:
    """Make zeros around an image, where a convolution alone reads it, the convolution's own padding."""

    def absorbed(giver: Node, node: Node) -> Node | None:
        given = giver.attributes
        if giver.operator != "pad" or given.get("mode", "constant") != "constant" or given.get("value", 0.0):
            return None
        widths, rank = list(given["widths"]), len(node.outputs[0].shape)
        channels = widths.pop(node.attributes.get("channel_axis", 1) % rank)
        batch, *spatial = widths
        if any(channels) or any(batch) or node.attributes.get("same") or any(n < 0 for pair in spatial for n in pair):
            return None
        both = zip(node.attributes["padding"], spatial, strict=True)
        padding = tuple((low + before, high + behind) for (low, high), (before, behind) in both)
        attributes = {**node.attributes, "padding": padding}
        return replace(node, operands=(giver.operands[0], *node.operands[1:]), attributes=attributes)

    return _into_giver(program, "convolution", absorbed)


_SCALED = ("layer_norm", "rms_norm", "group_norm")


def scales_absorbed(program: Program) -> Program:
    """Make the product and the sum with weights, right after a norm without any, the norm's own."""
    weights = {leaf.value for leaf in program.leaves if leaf.role == "parameter"}

    def fits(giver: Node, node: Node) -> bool:
        weight, shape = node.operands[1], node.outputs[0].shape
        if giver.operator not in _SCALED or giver.module != node.module or weight not in weights:
            return False
        if giver.operator == "group_norm":
            is_last = giver.attributes.get("channel_axis", 1) % len(shape) == len(shape) - 1
            return is_last and weight.shape == shape[-1:]
        return bool(weight.shape == tuple(shape[axis] for axis in giver.attributes["axes"]))

    def scaled(giver: Node, node: Node) -> Node | None:
        if not fits(giver, node) or any(operand is not None for operand in giver.operands[1:]):
            return None
        return replace(giver, operands=(giver.operands[0], node.operands[1]))

    def shifted(giver: Node, node: Node) -> Node | None:
        operands = (*giver.operands, None, None)[:3]
        if not fits(giver, node) or giver.operator == "rms_norm" or operands[2] is not None:
            return None
        return replace(giver, operands=(*operands[:2], node.operands[1]))

    return _into_giver(_into_giver(program, "multiply", scaled), "add", shifted)


_STATES = {"lstm": (1, 2), "gru": (1,), "rnn": (1,)}


def from_zeros(program: Program) -> Program:
    """Remove initial states of recurrent layers that are zeros; their shape depends on the batch."""
    zeros = {leaf.value for leaf in program.leaves if leaf.array is not None and not np.any(leaf.array)}
    nodes = []
    for node in program.nodes:
        gone = [place for place in _STATES.get(node.operator, ()) if node.operands[place] in zeros]
        operands = tuple(None if place in gone else operand for place, operand in enumerate(node.operands))
        nodes.append(replace(node, operands=operands) if gone else node)
    return used(replace(program, nodes=tuple(nodes)))


def simplified(program: Program, kept: Collection[str] = (), tables: bool = False) -> Program:
    """Apply all passes that shorten a program; see :func:`without_identities` and :func:`folded`."""
    return from_zeros(folded(without_identities(program, kept), tables))
