"""The key of a difference: what its edits are called together, by what stands around them."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Sequence

import numpy as np

from agnostic.compare import lowering, match
from agnostic.compare.edits import Edit, EditKind
from agnostic.compare.explain import DifferenceSummary
from agnostic.compare.known import ACTIVATIONS, PADS, RANK, mistake_of, operator_of
from agnostic.compare.lowering import MOVES, PARTS, PRODUCTS, kind
from agnostic.compare.prove import Difference
from agnostic.compare.replay import slots
from agnostic.compare.sides import Side, behind
from agnostic.compare.wording import index_of, leaf_of, related
from agnostic.program.nodes import Node, Value

_ARITHMETIC = frozenset({"multiply", "add", "subtract", "divide"})
STEPS = 12
"""How many operators a layer of code has, at most, that is told as one."""

_VAGUE = frozenset({"layer_order", "layer_missing", "layer_extra", "constant_differs", "unexplained"})
"""Keys that leave open what was done, where the numbers may tell it."""

_ROOTS = frozenset({"sqrt", "rsqrt", "power"})


def mistake(found: DifferenceSummary, difference: Difference) -> tuple[str, Edit]:
    """The key of a difference, and the edit that gave it."""
    edits = sorted(difference.edits, key=lambda e: index_of(found, e.b))
    if (drawn := next((e for e in edits if _is_drawn(found, e)), None)) is not None:
        return "dropout_on", drawn
    if norms := _swapped(found, edits):
        return norms, edits[0]
    if len(edits) > 1 and (one := together(found, edits)):
        return one
    keys = [(_key(found, edit), edit) for edit in edits]
    for wanted in RANK:
        for key, edit in keys:
            if key == wanted:
                return key, edit
    # What is added or multiplied besides belongs to another function.
    key, lead = next((x for x in keys if x[1].kind == "replaced"), keys[0])
    return (key in _VAGUE and _turned(found, difference)) or key, lead


def together(found: DifferenceSummary, edits: Sequence[Edit]) -> tuple[str, Edit] | None:
    """What several edits are, if they are one thought; and the edit that tells where."""
    extra, missing = ([e for e in edits if e.kind == k] for k in ("extra", "missing"))
    kinds = [{operator_of(e) for e in some} for some in (missing, extra)]
    if len(extra) == len(edits) and kinds[1] <= _ARITHMETIC and _prepares(found, extra[0]):
        return "preprocessing_range", edits[0]
    if len(missing) == len(edits) and len(layers := {(e.a.module, e.a.calls) for e in edits if e.a is not None}) == 1:
        (name, _), used = layers.pop(), {e.b.module for e in edits if e.b is not None}
        if name and name not in used:
            return "layer_missing", edits[0]
    if not extra or not missing:
        return None
    only = len(extra) + len(missing) == len(edits)
    if only and (name := _of_moves(kinds)):
        return name, edits[0]
    working = [some - MOVES for some in kinds]
    alike = [(x, y) for x in missing for y in extra if operator_of(x) == operator_of(y) not in MOVES]
    if pairs := alike if only else [(x, y) for x, y in alike if moved(found, [x], [y])]:
        return _of_pairs(found, pairs), pairs[0][0]
    functions = [[e for e in some if operator_of(e) in ACTIVATIONS] for some in (missing, extra)]
    for one, other in ((0, 1), (1, 0)):
        if only and functions[one] and working[other] <= ACTIVATIONS | _ARITHMETIC | {"power", "erf"}:
            return "activation_differs", functions[one][0]
    if only and [len(x) for x in working] == [1, 1] and lowering.related(*(next(iter(x)) for x in working)):
        ours, theirs = (next(iter(x)) for x in working)
        return mistake_of(Edit("replaced", missing[0].a, extra[0].b, theirs, ours, theirs)), missing[0]
    return None


def _of_moves(kinds: Sequence[set[str]]) -> str:
    """The key where A and B only move numbers, each in its own way."""
    whole = kinds[0] | kinds[1]
    if whole <= PARTS:
        return "wrong_part"
    if whole <= MOVES | {"expand"}:
        return "features_permuted"
    wraps = any("roll" in one and other & PADS for one, other in (kinds, kinds[::-1]))
    return "padding_mode" if wraps and whole <= MOVES | PADS else ""


def _of_pairs(found: DifferenceSummary, pairs: Sequence[tuple[Edit, Edit]]) -> str:
    """The key of operators that A has at one place and B at another."""
    names = {_alone(found, edit) for pair in pairs for edit in pair}
    if len(names) == 1 and (name := names.pop()):
        return name
    if any(_are_parts(found, x.ours, y.theirs) for x, y in pairs):
        return "wrong_part"
    return "layer_kind" if _beside_differs(found, *pairs[0]) else "layer_order"


def _beside_differs(found: DifferenceSummary, x: Edit, y: Edit) -> bool:
    """Whether both sides apply an operator to the same array, B beside one that A does not have."""
    label = found.a.labels.get(x.ours)
    if label is None or label != found.b.labels.get(y.theirs) or found.b.of_weights(y.theirs) or y.b is None:
        return False
    return any(isinstance(v, Value) and found.b.labels.get(v) is None for v in slots(y.b) if v != y.theirs)


def moved(found: DifferenceSummary, ones: Sequence[Edit], others: Sequence[Edit]) -> bool:
    """Whether some edits lack an operator of a layer that the others have in addition."""
    lacks, has = (
        [{_identity(side, node) for e in some if e.kind == which and (node := e.a if which == "missing" else e.b)}
         for which, side in (("missing", found.a), ("extra", found.b))]
        for some in (ones, others)
    )  # fmt: skip
    return bool(lacks[0] & has[1] or lacks[1] & has[0])


def _identity(side: Side, node: Node) -> tuple[str, ...]:
    """An operator as it is known from one model to the other: by its weights, its layer, or the layers before."""
    given = [side.leaves[x] for x in slots(node) if isinstance(x, Value) and x in side.leaves]
    weights = [leaf.name for leaf in given if leaf.role in ("parameter", "buffer")]
    if weights or node.module:
        return kind(node), *(weights or [node.module])
    made = [side.made_by(side.root(x)) for x in slots(node) if isinstance(x, Value)]
    return kind(node), *[n.module for n in made if n is not None and n.kind][-1:], ""


def _turned(found: DifferenceSummary, difference: Difference) -> str:
    """The key where B's array is A's with its axes in another order, or turned round along one of them."""
    values = found.a.root(difference.parting.a), found.b.root(difference.parting.b)
    if len(difference.edits) < 2 or math.prod(values[0].shape) != math.prod(values[1].shape):
        return ""
    x, y = found.a.arrays[values[0]], found.b.arrays[values[1]]
    for order in itertools.permutations(range(y.ndim)) if y.ndim < 5 else ():
        if order != tuple(range(y.ndim)) and match.distance(x, np.ascontiguousarray(y.transpose(order))) <= match.LOOSE:
            return "features_permuted"
    turned = x.shape == y.shape and any(match.distance(x, np.flip(y, axis)) <= match.LOOSE for axis in range(y.ndim))
    return "reversed" if turned else ""


def _key(found: DifferenceSummary, edit: Edit) -> str:
    if edit.kind == "leaf" and edit.theirs.dtype == "bool":
        return "attention_mask"
    if edit.kind == "leaf":
        name = related(found, edit).mistake
        # A gate's order is told of recurrent layers alone.
        gated = edit.b is not None and edit.b.kind in ("LSTM", "GRU", "RNN")
        return "weights_permuted" if name == "gate_order" and not gated else name
    if edit.kind in ("operand", "shape") and _is_mask(edit):
        return "attention_mask"
    values = isinstance(edit.ours, Value) and isinstance(edit.theirs, Value)
    if edit.kind == "operand" and values:
        name = _of_weights(found, edit) or (
            "wrong_part" if _are_parts(found, edit.ours, edit.theirs) else _skipped(found, edit)
        )
        if name:
            return name
    if edit.kind == "attribute" and operator_of(edit) == "select" and _of_one_weight(found, edit):
        return "wrong_part"
    if edit.kind in ("extra", "missing", "number") and (name := _alone(found, edit)):
        return name
    if operator_of(edit) in _ARITHMETIC and _prepares(found, edit):
        return "preprocessing_range"
    if operator_of(edit) in ("multiply", "divide") and _scores(found, edit):
        return "attention_scale"
    if edit.kind == "replaced" and {edit.ours, edit.theirs} <= PADS and _pooled(found.b, edit):
        return "average_pool_padding"
    return mistake_of(edit)


def _of_one_weight(found: DifferenceSummary, edit: Edit) -> bool:
    return edit.b is not None and all(found.b.of_weights(x) for x in slots(edit.b) if isinstance(x, Value))


def _is_mask(edit: Edit) -> bool:
    """Whether an edit is about what is hidden."""
    if edit.b is None or kind(edit.b) != "where":
        return False
    given = slots(edit.b)[0]
    if edit.kind == "operand":
        return isinstance(edit.theirs, Value) and edit.theirs.dtype == "bool"
    return isinstance(given, Value) and given.dtype == "bool"


def _of_weights(found: DifferenceSummary, edit: Edit) -> str:
    """The key where one weight stands for another."""
    zero = found.b.arrays[edit.theirs]
    roles = [found.a.role_of(edit.ours), found.b.role_of(edit.theirs)]
    if roles[1] == "parameter" and not zero.any() and zero.ndim == 1:
        return "bias_missing"
    if all(role in ("parameter", "buffer") for role in roles):
        return related(found, edit).mistake if not zero.any() else "weights_permuted"
    made = found.a.made_by(edit.ours), found.b.made_by(edit.theirs)
    if all(n is not None and kind(n) == "full" for n in made):
        return "constant_differs"
    return "weights_permuted" if found.a.of_weights(edit.ours) and found.b.of_weights(edit.theirs) else ""


def _are_parts(found: DifferenceSummary, ours: Value, theirs: Value) -> bool:
    """Whether one value is another part of what the other is a part of."""
    made = found.a.made_by(ours), found.b.made_by(theirs)
    if any(n is None or kind(n) not in PARTS for n in made):
        return False
    labels = [side.labels.get(slots(n)[0]) for side, n in zip((found.a, found.b), made, strict=True) if n is not None]
    return labels[0] is not None and labels[0] == labels[1]


def _skipped(found: DifferenceSummary, edit: Edit) -> str:
    """The key where one value is computed of the other: a layer, or an operator, is left out, or comes in."""
    ours, theirs = found.a.labels.get(edit.ours), found.b.labels.get(edit.theirs)
    in_b = set(found.b.labels.values()) - {None}
    if (way := _way(found.a, edit.ours, theirs)) and (name := _alone_on(found.a, found.b, way, "missing", in_b)):
        return name
    in_a = set(found.a.labels.values()) - {None}
    return _alone_on(found.b, found.a, way, "extra", in_a) if (way := _way(found.b, edit.theirs, ours)) else ""


def _alone_on(side: Side, other: Side, way: Sequence[Node], which: EditKind, known: set[int | None]) -> str:
    """The key of operators, one behind the other, that one side has alone."""
    last = way[0]
    if len(way) == 1 and kind(last) in _ARITHMETIC:
        given = [x for x in slots(last) if isinstance(x, Value) and side.labels.get(x) in known]
        if len(given) == sum(isinstance(x, Value) for x in slots(last)):
            return mistake_of(Edit(which, last, last))
    alone = _has_more(side, other, way)
    if not any(kind(n) in PRODUCTS for n in way) and len(way) <= STEPS:
        alone = alone or side.labels.get(last.outputs[0]) not in known
    return f"layer_{which}" if alone else ""


def _has_more(side: Side, other: Side, way: Sequence[Node]) -> bool:
    """Whether a side runs all of some operators more often than the other."""
    wanted = Counter((n.module, kind(n)) for n in way)
    mine, theirs = (Counter((n.module, kind(n)) for n in one.nodes) for one in (side, other))
    return all(mine[key] - theirs[key] >= count for key, count in wanted.items())


def _way(side: Side, value: Value, label: int | None) -> list[Node]:
    """The operators, the last one first, by which a value is computed of one with a label; none where it is not."""
    ways, todo = {value: list[Node]()}, deque([value])
    while todo and label is not None:
        one = todo.popleft()
        if one != value and side.labels.get(one) == label:
            return ways[one]
        made = side.made_by(one)
        for x in slots(made) if made is not None else ():
            if isinstance(x, Value) and x not in ways:
                ways[x] = [*ways[one], *([made] if made is not None and side.root(one) == one else [])]
                todo.append(x)
    return []


def _alone(found: DifferenceSummary, edit: Edit) -> str:
    """The key of an operator that one side has alone, by what it is applied to and what reads it."""
    what, node = operator_of(edit), edit.a if edit.kind == "missing" else edit.b
    side = found.a if edit.kind == "missing" else found.b
    if node is None:
        return ""
    if what in ACTIVATIONS and edit.kind != "number" and _repeats(side, node):
        return "activation_doubled"
    if what == "flip" and side.of_weights(node.outputs[0]):
        return "kernel_flipped"
    if node.outputs[0].dtype == "bool":
        return "attention_mask"
    if what in ("multiply", "divide") and edit.kind == "missing" and _normalizes(side, node, edit.ours):
        return "layer_missing"
    if what == "permute" and _flattens(edit, node):
        return "flatten_order"
    if what == "pad" and _uneven(node) and not any(_is_strided(n) for n in side.readers.get(node.outputs[0], ())):
        return "padding"
    if what == "add" and edit.kind != "number" and _hides(side, node, edit):
        return "attention_mask"
    if what in ("add", "subtract") and not all(isinstance(x, Value) for x in slots(node)[:2]):
        return "norm_epsilon" if _is_rooted(side, node) else "constant_offset"
    return ""


def _uneven(node: Node) -> bool:
    return any(low != high for low, high in node.attributes.get("widths", ()))


def _is_strided(node: Node) -> bool:
    return any(n != 1 for n in node.attributes.get("stride", ()))


def _hides(side: Side, node: Node, edit: Edit) -> bool:
    """Whether what is added to an attention's scores is a mask: it comes of no product with what the model is given."""
    if not any(n is not None and kind(n) == "softmax" for n in (edit.a, edit.b)):
        return False
    kept = edit.ours if edit.kind == "missing" else edit.theirs
    others = [x for x in slots(node) if isinstance(x, Value) and side.root(x) != side.root(kept)]
    return not any(
        made is not None and kind(made) in PRODUCTS and not side.of_weights(one)
        for x in others for one, made in behind(side, x, lambda v: False)
    )  # fmt: skip


def _normalizes(side: Side, node: Node, kept: Value) -> bool:
    """Whether an array is multiplied by numbers that are computed of itself alone, by no choice among them."""
    others, itself = [x for x in slots(node) if isinstance(x, Value) and x != kept], False
    for other in others:
        for k, (value, made) in enumerate(behind(side, other, lambda v: side.root(v) == side.root(kept))):
            if side.root(value) == side.root(kept):
                itself = True
            elif made is None or kind(made) in PRODUCTS or k > STEPS or not value.dtype.startswith(("float", "bfloat")):
                return False
    return itself


def _is_rooted(side: Side, node: Node) -> bool:
    """Whether a root is taken of what an operator gives, or was of what it is applied to."""
    giver = next((side.made_by(x) for x in slots(node) if isinstance(x, Value)), None)
    if giver is not None and kind(giver) in _ROOTS:
        return True
    return any(kind(n) in _ROOTS and node.outputs[0] in slots(n) for n in side.nodes)


def _flattens(edit: Edit, node: Node) -> bool:
    """Whether the axes of an image are turned before a dense layer."""
    user, source = edit.a if edit.kind == "extra" else edit.b, slots(node)[0]
    if user is None or kind(user) != "linear" or not isinstance(source, Value) or len(source.shape) != 4:
        return False
    return node.outputs[0].shape[1] != source.shape[2] or tuple(node.attributes["axes"]) == (0, 2, 3, 1)


def _swapped(found: DifferenceSummary, edits: Sequence[Edit]) -> str:
    norm = [e for e in edits if operator_of(e) in ("batch_norm", "layer_norm", "group_norm")
            and e.kind in ("operand", "leaf") and isinstance(e.theirs, Value)]  # fmt: skip
    ours = [(e.b, found.a.labels.get(e.ours)) for e in norm]
    theirs = [(e.b, found.b.labels.get(e.theirs)) for e in norm]
    if not any(x is not None and x == y and node is other for node, x in theirs for other, y in ours):
        return ""
    leaves = found.a.leaves
    names = {leaves[e.ours].name.rpartition(".")[2] for e in norm if e.ours in leaves}
    return "mean_variance_swapped" if any("running" in n or "moving" in n for n in names) else "gamma_beta_swapped"


def _is_drawn(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether B draws numbers for what it has otherwise."""
    if edit.b is None or edit.kind not in ("extra", "replaced"):
        return False
    given = [x for x in slots(edit.b) if isinstance(x, Value)]
    return any(
        one in found.b.run.drawn
        for x in given for one, _ in behind(found.b, x, lambda v: found.b.labels.get(v) is not None)
    )  # fmt: skip


def _repeats(side: Side, node: Node) -> bool:
    source = slots(node)[0]
    made = side.made_by(side.root(source)) if isinstance(source, Value) else None
    return made is not None and kind(made) == kind(node)


def _prepares(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether numbers are added to an input, or multiplied with it."""
    node = edit.b if edit.b is not None and edit.kind != "missing" else edit.a
    if node is None or edit.kind not in ("extra", "missing", "number"):
        return False
    side = 0 if node is edit.a else 1
    leaves = [leaf_of(found, side, x) for x in slots(node) if isinstance(x, Value)]
    inputs = [leaf for leaf in leaves if leaf is not None and leaf.role == "input"]
    return len(inputs) == 1 and all(leaf is not None and leaf.role in ("input", "constant") for leaf in leaves)


def _scores(found: DifferenceSummary, edit: Edit) -> bool:
    """Whether a number multiplies the scores of an attention: a product of matrices, and then a softmax."""
    side, node = (found.a, edit.a) if edit.kind == "missing" else (found.b, edit.b)
    if node is None or edit.kind not in ("attribute", "number", "missing", "extra"):
        return False
    if any(isinstance(x, Value) and len(x.shape) < 2 for x in slots(node)):
        return False
    near = _ARITHMETIC | MOVES | {"where", "matmul"}
    above = [made for _, made in behind(side, node.outputs[0], lambda v: _kind(side, v) not in near - {"matmul"})]
    below, todo = list[Node](), list(side.readers.get(node.outputs[0], ()))
    while todo and len(below) < 4 * STEPS:
        reader = todo.pop()
        below.append(reader)
        todo += side.readers.get(reader.outputs[0], ()) if kind(reader) in near else ()
    kinds = {kind(n) for n in (*above, *below) if n is not None}
    return "softmax" in {kind(n) for n in below} and "matmul" in kinds


def _kind(side: Side, value: Value) -> str:
    made = side.made_by(value)
    return "" if made is None else kind(made)


def _pooled(side: Side, edit: Edit) -> bool:
    """Whether what is padded is averaged."""
    padded = set() if edit.b is None else set(edit.b.outputs)
    return any(kind(n) == "average_pool" and padded.intersection(slots(n)[:1]) for n in side.nodes)
