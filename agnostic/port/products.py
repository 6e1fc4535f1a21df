"""Layout rules of sums of products: each factor is a letter of an einsum. See :mod:`agnostic.port.rules`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agnostic.port.laid import Axis, Factor, Laid, common, flat, fresh
from agnostic.port.layout import LayoutState, Move
from agnostic.port.orders import fresh_factors, refined
from agnostic.port.rules import LayoutRule, default, map_source
from agnostic.program.nodes import Node, Program
from agnostic.tables import filling

PRODUCTS: dict[str, LayoutRule] = {}
product = filling(PRODUCTS)
"""Register a function as the rule of operators that sum products."""


@product("matmul")
def _matmul(state: LayoutState, node: Node) -> None:
    a, b = (state.of(v) for v in node.operands)  # type: ignore[arg-type]
    if len(a.axes) < 2 or len(b.axes) < 2:
        default(state, node)
        return
    if a.is_natural and b.is_natural and len(a.axes) == len(b.axes) == 2:
        default(state, node)
        return
    rank = max(len(a.axes), len(b.axes))
    batch = "bhgnmlijaceftuvwxyz"[: rank - 2]
    # As attention says it: scores have queries and keys, which share channels; then channels are summed over keys.
    shared, last = ("d", "k") if b.axes[-2] and flat(b.order)[-1:] == b.axes[-2][-1:] else ("k", "d")
    equation = f"{batch[rank - len(a.axes) :]}q{shared},{batch[rank - len(b.axes) :]}{shared}{last}->{batch}q{last}"
    _einsum_of(state, node, [a, b], equation)


@product("einsum")
def _einsum(state: LayoutState, node: Node) -> None:
    operands = [state.of(v) for v in node.operands[0]]  # type: ignore[union-attr, arg-type]
    equation = str(node.attributes["equation"])
    if any(len(set(term)) < len(term) for term in equation.partition("->")[0].split(",")):
        default(state, node)
        return
    _einsum_of(state, node, operands, equation)


def _einsum_of(state: LayoutState, node: Node, operands: Sequence[Laid], equation: str) -> None:
    """A sum of products over axes in any order: each factor gets its own letter."""
    left, _, right = equation.partition("->")
    terms = left.split(",")
    found = _lettered(operands, terms)
    if found is None:
        default(state, node)
        return
    xs, axes_of = found
    names = _letters(
        [[f for axis in x.order for f in _ids(axis, x, term, axes_of)] for x, term in zip(xs, terms, strict=True)]
    )
    values, spelled = [], []
    for x, term in zip(xs, terms, strict=True):
        runs = _runs(flat(x.order), _ids(flat(x.order), x, term, axes_of), names)
        order, word = [axis for axis, _ in runs], "".join(letter for _, letter in runs)
        values.append(state.realized(x, order))
        spelled.append(word)
    result = _result_order(state, node, right, axes_of, names)
    value = state.emit([tuple(values)], {"equation": f"{','.join(spelled)}->{result}"}, "einsum")
    factors = {name: Factor(size) for name, size in ((n, n[2]) for letter in right for n in axes_of[letter])}
    axes = [tuple(factors[name] for name in axes_of[letter]) for letter in right]
    order = [tuple(factors[name] for name in names if names[name] == letter) for letter in result]
    state.give(axes, order, value)


def _result_order(
    state: LayoutState, node: Node, right: str, axes_of: dict[str, list[Any]], names: dict[Any, str]
) -> str:
    """The source's order, or the order that a later permutation needs."""
    users = state.consumers.get(node.outputs[0], ())
    if len(users) == 1 and users[0].operator == "permute":
        right = "".join(right[axis] for axis in users[0].attributes["axes"])
    return "".join(dict.fromkeys(names[name] for letter in right for name in axes_of[letter]))


def _lettered(operands: Sequence[Laid], terms: Sequence[str]) -> tuple[list[Laid], dict[str, list[Any]]] | None:
    """The operands, with equal factors for axes of the same letter, and (letter, place, size) for each factor."""
    xs = list(operands)
    axes_of: dict[str, list[Any]] = {}
    for letter in dict.fromkeys("".join(terms)):
        owners = [(i, term.index(letter)) for i, term in enumerate(terms) if letter in term]
        lengths: list[int] | None = []
        for i, place in owners:
            if xs[i].axes[place]:
                lengths = (
                    common(fresh_factors(lengths), xs[i].axes[place])
                    if lengths
                    else [f.size for f in xs[i].axes[place]]
                )
                if lengths is None:
                    return None
        for i, place in owners:
            if xs[i].axes[place]:
                xs[i] = refined(xs[i], place, lengths or [])
        axes_of[letter] = [(letter, n, size) for n, size in enumerate(lengths or [])]
    return xs, axes_of


def _ids(axis: Axis, x: Laid, term: str, axes_of: dict[str, list[Any]]) -> list[Any]:
    """The name of each factor of an axis."""
    known = {
        f: name for letter, a in zip(term, x.axes, strict=True) if a for f, name in zip(a, axes_of[letter], strict=True)
    }
    return [known[f] for f in axis]


def _letters(orders: Sequence[Sequence[Any]]) -> dict[Any, str]:
    """A letter for each factor, that of its axis for the first; factors that are contiguous in all arrays share one."""
    following: dict[Any, set[Any]] = {}
    for order in orders:
        for name, after in zip(order, [*order[1:], None], strict=True):
            following.setdefault(name, set()).add(after)
    before: dict[Any, set[Any]] = {}
    for order in orders:
        for name, previous in zip(order, [None, *order[:-1]], strict=True):
            before.setdefault(name, set()).add(previous)
    said = {name[0] for order in orders for name in order}
    free = iter([x for x in "hgnmlijaceftuvwxyzbqdkopsr" if x not in said])
    used: set[str] = set()
    names: dict[Any, str] = {}
    for order in orders:
        for name in order:
            if name in names:
                continue
            previous = next(iter(before[name])) if len(before[name]) == 1 else None
            joined = (
                previous is not None
                and following[previous] == {name}
                and previous[0] == name[0]
                and previous[1] == name[1] - 1
                and previous in names
            )
            if joined:
                names[name] = names[previous]
            else:
                letter = name[0] if name[0] not in used else next(free)
                used.add(letter)
                names[name] = letter
    return names


def _runs(axis: Axis, ids: Sequence[Any], names: dict[Any, str]) -> list[tuple[Axis, str]]:
    runs: list[tuple[Axis, str]] = []
    for factor, name in zip(axis, ids, strict=True):
        letter = names[name]
        if runs and runs[-1][1] == letter:
            runs[-1] = ((*runs[-1][0], factor), letter)
        else:
            runs.append(((factor,), letter))
    return runs


def absorbed(program: Program, moves: Sequence[Move]) -> tuple[Program, list[Move]]:
    """Without the transposes that a sum of products beside them can do: its axes may come and go in any order.

    Args:
        program: laid out.
        moves: its transposes.
    """
    left = list(moves)
    for move in moves:
        found = _into_readers(program, move.node) or _into_giver(program, move.node)
        if found is not None:
            program = found
            left.remove(move)
    return program, left


def _into_readers(program: Program, move: Node) -> Program | None:
    """A transpose that only sums of products read: they read what it moves."""
    [moved], source = move.outputs, move.operands[0]
    readers = [node for node in program.nodes if moved in node.reads]
    if not readers or any(node.operator != "einsum" for node in readers) or moved in dict(program.outputs).values():
        return None

    def one(node: Node) -> Node:
        if moved not in node.reads:
            return node
        left, _, right = str(node.attributes["equation"]).partition("->")
        terms, operands = left.split(","), list(node.operands[0])  # type: ignore[arg-type]
        for place, operand in enumerate(operands):
            if operand == moved:
                back = dict(zip(move.attributes["axes"], terms[place], strict=True))
                terms[place], operands[place] = "".join(back[axis] for axis in range(len(back))), source
        attributes = {**node.attributes, "equation": f"{','.join(terms)}->{right}"}
        return replace(node, operands=(tuple(operands),), attributes=attributes)

    return replace(program, nodes=tuple(one(node) for node in program.nodes if node is not move))


def _into_giver(program: Program, move: Node) -> Program | None:
    """A transpose of what a sum of products gives, which nothing else reads: the sum gives what is moved."""
    source = move.operands[0]
    readers = [node for node in program.nodes if source in node.reads]
    giver = next((node for node in program.nodes if source in node.outputs), None)
    if giver is None or giver.operator != "einsum" or readers != [move] or source in dict(program.outputs).values():
        return None
    left, _, right = str(giver.attributes["equation"]).partition("->")
    equation = f"{left}->{''.join(right[axis] for axis in move.attributes['axes'])}"
    new = replace(giver, outputs=move.outputs, attributes={**giver.attributes, "equation": equation})
    return replace(program, nodes=tuple(new if node is giver else node for node in program.nodes if node is not move))


@product("attention")
def _attention(state: LayoutState, node: Node) -> None:
    query, key, value, *mask = node.operands
    parts = [state.of(v) for v in (query, key, value)]  # type: ignore[arg-type]
    if any(len(x.axes) != 4 for x in parts) or node.attributes.get("place_axis", -2) != -2:
        default(state, node)
        return
    # Heads come after the positions, since they are split from the channels of one product.
    values = [state.realized(x, [x.axes[place] for place in (0, 2, 1, 3)]) for x in parts]
    rest = [map_source(state, operand) for operand in mask]
    found = state.emit([*values, *rest], {**node.attributes, "place_axis": -3})
    axes = [*parts[0].axes[:3], fresh(found.shape[-1])]
    state.give(axes, [axes[place] for place in (0, 2, 1, 3)], found)
