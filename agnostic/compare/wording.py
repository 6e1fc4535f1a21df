"""An edit as a sentence: what B does, what A does, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agnostic.compare.edits import Edit
from agnostic.compare.explain import DifferenceSummary
from agnostic.compare.judging import of_one_framework
from agnostic.compare.known import operator_of
from agnostic.compare.leaf_relations import LeafRelation, relation
from agnostic.compare.lowering import MOVES, PARTS, kind
from agnostic.compare.prove import Difference
from agnostic.compare.replay import slots
from agnostic.compare.sides import Side, behind
from agnostic.files import shown_path
from agnostic.program.nodes import Leaf, Node, Value

WHOLE = frozenset({"MultiheadAttention", "LSTM", "GRU", "SimpleRNN", "RNN"})
"""Classes of layers whose inner layers are their own business."""

SHOWN = 8
"""How many operators of a piece are printed."""

_TOLD = ("axes", "axis", "widths", "value", "index", "start", "stop")
"""Attributes that an operator is told by."""


# Places --------------------------------------------------------------------------------------------------------------
def where(found: DifferenceSummary, lead: Edit, difference: Difference) -> tuple[str, str, str, str]:
    """A's and B's layer, ``"layer"`` or ``"code"``, and B's layer before."""
    own = lead.a if lead.kind == "missing" else lead.b
    side = found.a if lead.kind == "missing" else found.b
    if own is not None and is_layer(side, own) and lead.kind != "missing":
        ours = lead.a.module if lead.a is not None and is_layer(found.a, lead.a) else own.module
        return ours, own.module, "layer", ""
    index = index_of(found, own if lead.kind == "extra" else difference.b if difference.b is not None else own)
    if (lacks := lacking(found, lead)) is not None:
        index = index_of(found, lacks) + 1
    user = next((n.module for n in found.b.nodes[index:] if is_layer(found.b, n)), "")
    before = [n.module for n in found.b.nodes[:index] if is_layer(found.b, n)]
    after = before[-1] if before else "input"
    if before and lead.a is not None and _is_fused(found, lead):
        return lead.a.module, after, "layer", ""
    ours = lead.a.module if lead.a is not None and is_layer(found.a, lead.a) else user or "output"
    if difference.parting.node < 0:
        user = ""
    return ours, user or after, "code", after


def is_layer(side: Side, node: Node) -> bool:
    """Whether a layer without layers inside ran the node, or one whose inner layers are its own business."""
    name = node.module
    if not name:
        return False
    if node.kind in WHOLE:
        return True
    return not any(other.startswith(f"{name}.") for other in side.run.program.modules)


def lacking(found: DifferenceSummary, edit: Edit) -> Node | None:
    """B's operator after which one is missing."""
    if edit.kind != "missing" or not isinstance(edit.theirs, Value):
        return None
    return found.b.made_by(found.b.root(edit.theirs))


def _is_fused(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether A's layer itself computes the operator that B lacks, as an activation of its own."""
    if edit.kind != "missing" or edit.a is None or not is_layer(found.a, edit.a):
        return False
    made = found.a.made_by(found.a.root(edit.ours)) if isinstance(edit.ours, Value) else None
    return made is not None and made.module == edit.a.module


def index_of(found: DifferenceSummary, node: Node | None) -> int:
    """The place of a node among B's."""
    if node is None or not node.outputs or node.outputs[0] not in found.b.producer:
        return len(found.b.nodes)
    return found.b.producer[node.outputs[0]][0]


def place(node: Node | None) -> str:
    """File and line, the file relative to the working folder if it is below it."""
    if node is None or node.file is None:
        return ""
    return f"{shown_path(node.file)}:{node.line}"


def _seen(node: Node | None) -> str:
    return f" at {place(node)}" if place(node) else ""


# Sentences -----------------------------------------------------------------------------------------------------------
def sentence(found: DifferenceSummary, edit: Edit, difference: Difference) -> str:
    """What B does, and what A does."""
    at, what = _at(edit), operator_of(edit)
    if what == "cast" and edit.kind in ("missing", "extra"):
        node = edit.a if edit.kind == "missing" else edit.b
        what = f"a cast to {node.outputs[0].dtype}" if node is not None else what
    match edit.kind:
        case "attribute":
            return f"{at} {what} has {edit.name}={edit.theirs!r}, A's has {edit.ours!r}."
        case "number":
            return f"{at} {what} by {edit.theirs!r} stands where A has {edit.ours!r}."
        case "shape":
            return f"{at} {what} runs over the same numbers in shape {edit.theirs}, A's in {edit.ours}."
        case "part":
            return f"{at} part {edit.theirs} of {what} is used, A uses part {edit.ours}."
        case "operand":
            return f"{at} {what} takes {named(found, 1, edit.theirs)}, A's takes {named(found, 0, edit.ours)}."
        case "order":
            return f"{at} {what} joins the parts in another order: A's are B's {edit.ours}."
        case "leaf":
            return f"{at} {named(found, 1, edit.theirs)} {related(found, edit).words}."
        case "missing" if edit.a is not None and _is_fused(found, edit):
            _, layer, _, _ = where(found, edit, difference)
            return f"Layer {layer!r} lacks {what}, which A's layer {edit.a.module!r} computes{_seen(edit.a)}."
        case "missing":
            return f"{at} {what}{others_of(found, 0, edit.a, edit.ours)} is missing, which A has{_seen(edit.a)}."
        case "extra":
            others = others_of(found, 1, edit.b, edit.theirs)
            return f"{at} {what}{others} is computed{_seen(edit.b)}, A does not."
        case "replaced":
            return f"{at} {edit.theirs} stands where A has {edit.ours}."
    ours, theirs = _listed(found, 0, difference.parting.a), _listed(found, 1, difference.parting.b)
    return f"{at} B computes {theirs}; A computes {ours}. The pieces were exchanged as a whole."


def _at(edit: Edit) -> str:
    if edit.b is None:
        return "At the output"
    at = place(edit.b)
    if edit.b.module:
        return f"At layer {edit.b.module!r}{f' ({at})' if at else ''}"
    return f"At {at}" if at else "In the model"


def others_of(found: DifferenceSummary, side: int, node: Node | None, kept: Any) -> str:
    """The operands of an operator beside the one that goes through it."""
    if node is None:
        return ""
    given = [x for x in slots(node) if x != kept and x is not None and not isinstance(x, bool)]
    told = [named(found, side, x) for x in given[:3]]
    said = [f"{k}={v!r}" for k, v in node.attributes.items() if k in _TOLD]
    return f" ({', '.join((*told, *said))})" if told or said else ""


# Values --------------------------------------------------------------------------------------------------------------
def named(found: DifferenceSummary, side: int, value: Any) -> str:
    """A value as text: the name of a leaf, or the operator that computes it."""
    if not isinstance(value, Value):
        return repr(value)
    one = (found.a, found.b)[side]
    root, part = _source(one, value)
    leaf = one.leaves.get(root)
    if leaf is not None:
        return part + (leaf.name if leaf.role != "constant" else f"a constant of shape {value.shape}")
    if one.of_weights(value) and (names := _weights_of(one, value)):
        return " and ".join(names)
    made = one.made_by(root)
    assert made is not None
    of = f" of layer {made.module!r}" if made.module else ""
    return f"{part}the {kind(made)}{of}{_seen(made)}"


def leaf_of(found: DifferenceSummary, side: int, value: Value) -> Leaf | None:
    """The leaf whose numbers a value holds, perhaps in another order; None for any other."""
    one = (found.a, found.b)[side]
    root, part = _source(one, value)
    return None if part else one.leaves.get(root)


def related(found: DifferenceSummary, edit: Edit) -> LeafRelation:
    """What B's leaf is to A's."""
    key = edit.ours, edit.theirs
    if key not in found.relations:
        found.relations[key] = _related(found, edit)
    return found.relations[key]


def _related(found: DifferenceSummary, edit: Edit) -> LeafRelation:
    leaf = leaf_of(found, 1, edit.theirs)
    x, y = found.a.arrays[edit.ours], found.b.arrays[edit.theirs]
    stored = leaf is None or leaf.value != edit.theirs or not of_one_framework(found.a.run, found.b.run)
    if x.shape != y.shape and x.size == y.size and stored:
        y = y.reshape(x.shape)  # how a framework stores it is no mistake
    return relation(x, y, "" if leaf is None else leaf.name)


def _listed(found: DifferenceSummary, side: int, value: Value) -> str:
    """The operators that compute a value, back to what both sides have."""
    one, other = (found.a, found.b) if side == 0 else (found.b, found.a)
    present = {label for label in other.labels.values() if label is not None}
    steps, sources = set[int](), dict[str, None]()
    for v, made in behind(one, value, lambda v: one.labels.get(v) in present):
        if made is None or one.labels.get(v) in present:
            sources[named(found, side, v)] = None
        else:
            steps.add(one.producer[v][0])
    return _listing([one.nodes[k] for k in sorted(steps) if any(one.root(v) == v for v in one.nodes[k].outputs)],
                    list(sources))  # fmt: skip


def _listing(steps: Sequence[Node], sources: Sequence[str]) -> str:
    shown = ", ".join(map(kind, steps[-SHOWN:])) or "nothing"
    at = next(filter(None, map(place, reversed(steps))), "")
    more = "... " if len(steps) > SHOWN else ""
    return f"{more}{shown}{f' at {at}' if at else ''} from {', '.join(sources[:4]) or 'constants'}"


def _source(side: Side, value: Value) -> tuple[Value, str]:
    """What a value was before it was only moved, and which part of it it is."""
    part = ""
    while (made := side.made_by(value)) is not None and kind(made) in MOVES and isinstance(slots(made)[0], Value):
        if kind(made) in PARTS:
            number = made.attributes.get("index", made.attributes.get("start", side.producer[value][1]))
            part = f"part {number} of "
        value = slots(made)[0]
    return value, part


def _weights_of(side: Side, value: Value) -> list[str]:
    """The names of the weights that a value is computed of."""
    leaves = (side.leaves[v].name for v, made in behind(side, value, lambda v: False) if made is None)
    return list(dict.fromkeys(leaves))[:3]
